"""Liveness is progress (R6.4): loading, busy, wedged and idle told apart. Pure; times are monotonic."""

from __future__ import annotations

from mlx_server import protocol
from supervision import ProbeResult, State

LOADING_PATIENCE = 4.0
"""A model's load may take so many times longer between two signs of progress."""


class EnginePulse:
    """One engine's signs of life. An answer of any kind is progress, and so is a step more in `alive`."""

    def __init__(self, progress_timeout_s: float, now: float) -> None:
        self._timeout_s = progress_timeout_s
        self._heard_at = now
        self._progress_at = now
        self._steps = -1
        self._working = False
        self._loading: str | None = None
        self._signs = 0
        self.ready = False
        self.active_bytes = 0

    @property
    def loading(self) -> str | None:
        """The model that is being loaded."""
        return self._loading

    def on_event(self, event: protocol.Event, now: float) -> None:
        self._heard_at = now
        if not isinstance(event, protocol.Alive):
            self._signs += 1
            self._progress_at = now
        match event:
            case protocol.Alive(progress=steps, working=working, loading=loading):
                if steps != self._steps or (working and not self._working):
                    self._progress_at = now
                self._steps, self._working, self._loading = steps, working, loading
                self.active_bytes = event.active_bytes
            case protocol.Loading(model=model, fraction=fraction):
                self._loading = model if fraction < 1 else None
            case protocol.Loaded():
                self._loading = None
            case protocol.Ready():
                self.ready = True
            case _:
                pass

    def work_sent(self, was_idle: bool, now: float) -> None:
        """A request has gone to the engine: from now on it is expected to get on."""
        if was_idle:
            self._progress_at = now

    def judge(self, running: int, now: float) -> ProbeResult:
        """The health of an engine that has `running` requests of ours."""
        silent_s, still_s = now - self._heard_at, now - self._progress_at
        if silent_s > self._timeout_s:
            return ProbeResult(False, f"wedged: no sign of life for {silent_s:.0f} s")
        patience_s = self._timeout_s * (LOADING_PATIENCE if self._loading else 1.0)
        if (running or self._working) and still_s > patience_s:
            doing = f"loading {self._loading}" if self._loading else f"working on {running} requests"
            return ProbeResult(False, f"wedged: {doing} without progress for {still_s:.0f} s")
        if not self.ready:
            return ProbeResult(False, self._detail(), State.STARTING, progress=float(self._signs))
        busy = running or self._working or self._loading
        return ProbeResult(True, self._detail(), State.BUSY if busy else State.READY)

    def _detail(self) -> str:
        return f"loading {self._loading}" if self._loading else ""
