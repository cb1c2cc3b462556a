"""Decide from an engine's events whether it is loading, busy, idle or wedged. Pure.

A working engine is alive as long as it makes progress: a token, a part of a prompt, a part of a model. An
idle engine makes no progress, and after the machine slept, its GPU may be lost while its process reports that
all is well. An idle engine is therefore sent a probe from time to time, which it must answer with a token and
an embedding.
"""

from __future__ import annotations

from mlx_server import protocol
from vestal.supervision import ProbeResult, State

LOADING_TIMEOUT_FACTOR = 4.0
"""While a model loads, the timeout for progress may grow up to this factor, but only if earlier steps of the
load were slow too. A load that reported progress every second is stuck after the usual timeout."""
MOST_BETWEEN_JUDGEMENTS_S = 5.0
"""The gateway judges its engine each second. If this much time passes between two judgements, the gateway
itself was blocked."""
PACE_FACTOR = 3.0
"""The next step of a load may take this many times as long as the load's slowest step so far."""


class EngineLiveness:
    """Judges the health of an engine by its events. Every event is progress, with one exception: an `Alive`
    event (the heartbeat) is progress only if its step count has changed or the engine has just begun to work.

    `progress_timeout_s` limits the time without progress, and the time without any event. `probe_interval_s`
    is the time between probes of an idle engine. All times are monotonic seconds.
    """

    def __init__(self, progress_timeout_s: float, now: float, probe_interval_s: float = 30.0) -> None:
        self.ready = False
        self.loading: str | None = None  # the model that is being loaded
        self._timeout_s = progress_timeout_s
        self._probe_interval_s = probe_interval_s
        self._last_event_at = now
        self._last_progress_at = now
        self._last_judged_at: float | None = None
        self._steps = -1
        self._working = False
        self._progress_events = 0
        self._load_step_at = now
        self._slowest_load_step_s = 0.0
        self._last_probe_at = now
        self._unanswered_probe_at: float | None = None
        self._probe_at_once = False
        self._probe_fault = ""

    def on_event(self, event: protocol.Event, now: float) -> None:
        """Record an event of the engine."""
        self._last_event_at = now
        if not isinstance(event, protocol.Alive):
            self._progress_events += 1
            self._last_progress_at = now
        match event:
            case protocol.Alive(progress=steps, working=working, loading=loading):
                if steps != self._steps or (working and not self._working):
                    self._last_progress_at = now
                self._steps, self._working = steps, working
                self._set_loading(loading, now)
            case protocol.Loading(model=model, fraction=fraction):
                self._set_loading(model if fraction < 1 else None, now)
                self._slowest_load_step_s = max(self._slowest_load_step_s, now - self._load_step_at)
                self._load_step_at = now
            case protocol.Loaded():
                self._set_loading(None, now)
            case protocol.Ready():
                self.ready = True
            case protocol.Probed(ok=ok, detail=detail):
                self._unanswered_probe_at, self._probe_fault = None, "" if ok else detail
            case _:
                pass

    def _set_loading(self, model: str | None, now: float) -> None:
        """Record which model is being loaded (None: no model). If the model has changed, forget how long the
        steps of the previous load took, by which the timeout of a slow load is extended.
        """
        if model != self.loading:
            self.loading, self._load_step_at, self._slowest_load_step_s = model, now, 0.0

    def work_sent(self, was_idle: bool, now: float) -> None:
        """Record that an operation was sent. If the engine was idle, its time without progress begins now."""
        if was_idle:
            self._last_progress_at = now

    def machine_woke(self, now: float) -> None:
        """Record that the machine has slept. The time asleep does not count towards any timeout, and the next
        probe of an idle engine is due at once.
        """
        self._last_event_at = self._last_progress_at = now
        self._unanswered_probe_at, self._probe_at_once = None, True

    def probe_due(self, running: int, now: float) -> bool:
        """Return whether the engine should be sent a probe now, which the caller must then send. `running` is
        the number of the gateway's requests that run in the engine.
        """
        idle = self.ready and not (running or self._working or self.loading)
        if not idle or self._unanswered_probe_at is not None:
            return False
        waited_s = now - max(self._last_probe_at, self._last_progress_at)
        if waited_s < self._probe_interval_s and not self._probe_at_once:
            return False
        self._last_probe_at = self._unanswered_probe_at = now
        self._probe_at_once = False
        return True

    def judge(self, running: int, now: float) -> ProbeResult:
        """Return the health of the engine. `running` is the number of the gateway's requests that run in the
        engine.
        """
        self._excuse_own_delay(now)
        if fault := self._fault(running, now):
            return ProbeResult(False, fault)
        detail = f"loading {self.loading}" if self.loading else ""
        if not self.ready:
            return ProbeResult(False, detail, State.STARTING, progress=float(self._progress_events))
        busy = running or self._working or self.loading
        return ProbeResult(True, detail, State.BUSY if busy else State.READY)

    def _excuse_own_delay(self, now: float) -> None:
        """If the last judgement was long ago, the gateway itself was blocked and could not read the engine's
        events. Exclude that time from the engine's time without events, progress and probe answers.
        """
        last, self._last_judged_at = self._last_judged_at, now
        if last is None or now - last <= MOST_BETWEEN_JUDGEMENTS_S:
            return
        held_up_s = now - last
        self._last_event_at = min(self._last_event_at + held_up_s, now)
        self._last_progress_at = min(self._last_progress_at + held_up_s, now)
        if self._unanswered_probe_at is not None:
            self._unanswered_probe_at = min(self._unanswered_probe_at + held_up_s, now)

    def _fault(self, running: int, now: float) -> str:
        """Return why the engine must be replaced; an empty string if it need not be. `running` is the number
        of the gateway's requests that run in the engine, and `now` is in monotonic seconds.
        """
        silent_s = now - self._last_event_at
        if silent_s > self._timeout_s:
            return f"wedged: no sign of life for {silent_s:.0f} s"
        if self._probe_fault:
            return f"a probe was answered wrongly: {self._probe_fault}"
        if self._unanswered_probe_at is not None and not running:
            probe_s = now - self._unanswered_probe_at
            if probe_s > self._timeout_s:
                return f"wedged: idle, and no answer to a probe for {probe_s:.0f} s"
        stalled_s = now - self._last_progress_at
        if (running or self._working) and stalled_s > self._progress_timeout_s():
            doing = f"loading {self.loading}" if self.loading else f"working on {running} requests"
            return f"wedged: {doing} without progress for {stalled_s:.0f} s"
        return ""

    def _progress_timeout_s(self) -> float:
        """Return for how many seconds the engine may make no progress. This is longer than usual only while a
        model loads slowly.
        """
        if not self.loading:
            return self._timeout_s
        by_pace_s = PACE_FACTOR * self._slowest_load_step_s
        return min(max(self._timeout_s, by_pace_s), LOADING_TIMEOUT_FACTOR * self._timeout_s)
