"""Liveness is progress (R6.4): loading, busy, wedged and idle told apart. Pure; times are monotonic.

An idle engine makes no progress to go by, and a GPU may be gone after a sleep while its process says that all
is well. So it is asked for a token and a vector from time to time: 200 and nothing sensible is a failure.
"""

from __future__ import annotations

from mlx_server import protocol
from vestal.supervision import ProbeResult, State

LOADING_PATIENCE = 4.0
"""A model's load may take so many times longer between two signs of progress."""


class EngineLiveness:
    """One engine's signs of life. An answer of any kind is progress, and so is a step more in `alive`."""

    def __init__(self, progress_timeout_s: float, now: float, probe_interval_s: float = 30.0) -> None:
        self._timeout_s = progress_timeout_s
        self._probe_interval_s = probe_interval_s
        self._probed_at = now
        self._asked_at: float | None = None
        self._senseless = ""
        self._at_once = False
        self._heard_at = now
        self._progress_at = now
        self._steps = -1
        self._working = False
        self._loading: str | None = None
        self._signs = 0
        self.ready = False
        self.active_bytes = self.footprint_bytes = self.limit_bytes = 0
        self.memory, self.prompt_cache = protocol.MemoryUse(), protocol.PromptCacheUse()

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
                self.footprint_bytes, self.limit_bytes = event.footprint_bytes, event.limit_bytes
                self.memory, self.prompt_cache = event.memory, event.prompt_cache
            case protocol.Loading(model=model, fraction=fraction):
                self._loading = model if fraction < 1 else None
            case protocol.Loaded():
                self._loading = None
            case protocol.Ready():
                self.ready = True
            case protocol.Probed(ok=ok, detail=detail):
                self._asked_at, self._senseless = None, "" if ok else detail
            case _:
                pass

    def work_sent(self, was_idle: bool, now: float) -> None:
        """A request has gone to the engine: from now on it is expected to get on."""
        if was_idle:
            self._progress_at = now

    def woke(self, now: float) -> None:
        """The machine slept, and Metal's context may be gone: the engine is asked for a token at once."""
        self._heard_at = self._progress_at = now
        self._asked_at, self._at_once = None, True

    def probe_due(self, running: int, now: float) -> bool:
        """Whether an engine that has nothing to do is to be asked for a token; it then counts as asked."""
        idle = self.ready and not (running or self._working or self._loading)
        due = idle and self._asked_at is None
        waited_s = now - max(self._probed_at, self._progress_at)
        if not due or (waited_s < self._probe_interval_s and not self._at_once):
            return False
        self._probed_at = self._asked_at = now
        self._at_once = False
        return True

    def judge(self, running: int, now: float) -> ProbeResult:
        """The health of an engine that has `running` requests of ours."""
        silent_s, still_s = now - self._heard_at, now - self._progress_at
        if silent_s > self._timeout_s:
            return ProbeResult(False, f"wedged: no sign of life for {silent_s:.0f} s")
        if self._senseless:
            return ProbeResult(False, f"gives no sense: {self._senseless}")
        if self._asked_at is not None and now - self._asked_at > self._timeout_s and not running:
            return ProbeResult(
                False, f"wedged: idle, and no answer to a probe for {now - self._asked_at:.0f} s"
            )
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
