"""Drive the lifecycle of one child by hand, with the time as a number."""

from __future__ import annotations

from vestal.supervision import (
    Backoff,
    BreakerPolicy,
    ExitStatus,
    Intensity,
    ProbePolicy,
    ProbeResult,
    RestartPolicy,
    State,
)
from vestal.supervision.lifecycle.actions import Action, Emit
from vestal.supervision.lifecycle.child_state import ChildState, initial_state
from vestal.supervision.lifecycle.inputs import Exited, Input, Launched, ReadyProbed, Start, TimerFired
from vestal.supervision.lifecycle.transition import step

POLICY = RestartPolicy(
    backoff=Backoff(2, 60),
    intensity=Intensity(5, 300),
    breaker=BreakerPolicy(failures=3, open_s=60, max_open_s=1800),
    start_timeout_s=30,
    stop_timeout_s=10,
    stable_after_s=10,
    probe=ProbePolicy(interval_s=10, timeout_s=5, failures=3),
)
CRASH = ExitStatus(signal=11)
OK = ProbeResult(True)
FAILED_PROBE = ProbeResult(False)


class ChildDriver:
    """One child. `send` passes an input to the lifecycle; `actions` are those of the last input."""

    def __init__(self, child: ChildState | None = None, policy: RestartPolicy = POLICY) -> None:
        self.child = child or initial_state(policy)
        self.now = 0.0
        self.actions: tuple[Action, ...] = ()

    def send(self, received: Input, at: float | None = None) -> ChildDriver:
        """Pass an input, at the time `at` if it is given."""
        self.now = self.now if at is None else at
        self.child, self.actions = step(self.child, received, self.now)
        return self

    def fire_timer(self) -> ChildDriver:
        """Move the time to the child's timer, and fire it."""
        assert self.child.timer_at is not None
        return self.send(TimerFired(), max(self.now, self.child.timer_at))

    def launch(self) -> ChildDriver:
        """Report that the process was launched."""
        return self.send(Launched(self.child.run, 100 + self.child.run))

    def launch_and_ready(self, at: float | None = None) -> ChildDriver:
        """Report that the process was launched and is ready."""
        self.launch()
        return self.send(ReadyProbed(self.child.run, OK), at)

    def exit(
        self,
        status: ExitStatus = CRASH,
        at: float | None = None,
        last_line: str = "",
        productive: bool = False,
    ) -> ChildDriver:
        """Report that the process has ended."""
        return self.send(Exited(self.child.run, status, last_line, productive), at)

    def has_action(self, kind: type) -> bool:
        """Return whether the last input led to an action of this type."""
        return any(isinstance(action, kind) for action in self.actions)

    def has_event(self, event: str) -> bool:
        """Return whether the last input led to this event."""
        return any(isinstance(action, Emit) and action.event == event for action in self.actions)


def ready_child(policy: RestartPolicy = POLICY) -> ChildDriver:
    """Return a child that has just become ready."""
    return ChildDriver(policy=policy).send(Start()).launch_and_ready()


def open_child() -> ChildDriver:
    """Return a child whose breaker three failed starts have opened."""
    driver = ChildDriver().send(Start())
    for n in range(3):
        driver.launch().exit(ExitStatus(code=1), last_line="port 11435 is held by python3")
        if n < 2:
            driver.fire_timer()
    assert driver.child.state is State.OPEN
    return driver
