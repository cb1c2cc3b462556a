"""The supervisor, as in OTP: it starts children in order, stops them in reverse, and restarts them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Iterable
from typing import Any

from vestal.supervision.child import Child
from vestal.supervision.child_spec import ChildSpec
from vestal.supervision.child_status import wait_timeout
from vestal.supervision.clock import Clock, SystemClock, next_tick
from vestal.supervision.errors import (
    SpecError,
    StoppedByHand,
    StopTimeout,
    SupervisorStopped,
    UnknownChild,
    WaitTimeout,
)
from vestal.supervision.event_stream import Event, EventStream, log_event
from vestal.supervision.lifecycle.inputs import Restart, Start, Stop
from vestal.supervision.lifecycle.probe import ProbeResult
from vestal.supervision.lifecycle.restart_strategy import SiblingGroup
from vestal.supervision.lifecycle.states import ChildStatus, State, Strategy
from vestal.supervision.named_tasks import NamedTasks
from vestal.supervision.state_store import StateStore
from vestal.supervision.state_waiters import StateWaiters

_log = logging.getLogger(__name__)
_KEEP_FILES_S = 1.0  # how soon a PID file that was deleted, or could not be written, is there again
_STUCK_S = 10.0  # how long a stop waits after SIGKILL before it reports that the process does not end

GAVE_UP = frozenset({State.OPEN, State.FAILED})


class Supervisor:
    """Supervises the children of the given specs, in that order. All calls come from one event loop.

    `on_event` receives every event at once and in order; it must not block. With a `store`, open breakers and
    stops by hand outlive the supervisor. A method that takes a `name` raises UnknownChild if no child has it.
    """

    def __init__(
        self,
        specs: Iterable[ChildSpec],
        *,
        strategy: Strategy = Strategy.ONE_FOR_ONE,
        clock: Clock | None = None,
        on_event: Callable[[Event], None] = log_event,
        store: StateStore | None = None,
        name: str = "supervisor",
    ) -> None:
        self.name = name
        self._clock = clock or SystemClock()
        self._on_event = on_event
        self._store = store
        self._tasks = NamedTasks(name)
        self._events = EventStream(self._clock.wall, self._publish)
        self._waiters = StateWaiters()
        self._running = self._stopped = False
        self._gave_up: dict[str, str] = {}
        self._instruction_due = False
        specs = tuple(specs)
        self._group = SiblingGroup(strategy, tuple(spec.name for spec in specs))
        if len(set(self._group.names)) != len(specs):
            raise SpecError(f"two children have one name: {', '.join(self._group.names)}")
        self._children = {
            spec.name: Child(
                spec,
                self._clock,
                self._events,
                store,
                coupled=self._group.coupled,
                on_change=self._child_changed,
                on_restart_siblings=self._child_died,
            )
            for spec in specs
        }

    @property
    def gave_up(self) -> dict[str, str]:
        """Return the name of each child that is no longer restarted (OPEN or FAILED), with the reason."""
        return dict(self._gave_up)

    def status(self) -> dict[str, ChildStatus]:
        """Return the status of every child, in start order."""
        return {name: child.status() for name, child in self._children.items()}

    def predecessors(self, name: str) -> list[int]:
        """Return the PIDs of a child's processes that still run after they were asked to hand over."""
        return self._child(name).predecessors

    def trial_at(self, name: str) -> float | None:
        """Return the monotonic time at which the next trial start of a child's circuit breaker is due.

        During a trial, return when it began. None if the breaker is closed, or if no trial will follow.
        """
        return self._child(name).trial_at

    # --- all children ---------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Adopt or start every child that was not stopped by hand. A launch that fails raises no exception.

        Under ONE_FOR_ONE, all children are launched at once, and `start` waits until each launch has ended.
        Under the other strategies, each child is launched when the one before it is up. `start` waits only
        for launches that are under way, and then returns; the supervisor launches the other children later.
        """
        self._running, self._stopped = True, False
        self._tasks.run("files", self._keep_files())
        for child in self._children.values():
            child.begin(on_hold=self._group.coupled)
        self._group = self._group.start_all()
        self._instruct()
        for child in self._children.values():
            await child.wait_for_launch()

    async def stop(self) -> None:
        """Stop every child, the last one first, and wait for each process to be reaped before the next.

        Raises StopTimeout if a process does not end on SIGKILL, after all others have been stopped. From the
        beginning of the stop, each request to start a child raises SupervisorStopped.
        """
        self._running, self._stopped = False, True
        stuck: list[str] = []
        for child in reversed(self._children.values()):
            child.send(Stop("the supervisor stops", by_hand=False))
            try:
                await self._wait_while_stopping(child)
                await child.wait_for_predecessors()
            except StopTimeout as error:
                stuck.append(error.message)
        for child in self._children.values():
            await child.detach()
        await self._tasks.cancel_all()
        self._events.emit(self.name, "supervisor_stopped")
        if stuck:
            raise StopTimeout("; ".join(stuck))

    def machine_woke(self, slept_s: float) -> None:
        """Forget failures from before the machine slept, and probe every child now."""
        if not self._running:  # the saved state is not loaded yet, and must not be overwritten
            return
        self._events.emit(self.name, "machine_woke", slept_s=round(slept_s, 1))
        for child in self._children.values():
            child.machine_woke(slept_s)

    async def detach(self) -> None:
        """Stop supervising. The next supervisor finds the processes, which run on, by their PID files."""
        self._running, self._stopped = False, True
        for child in self._children.values():
            await child.detach()
        await self._tasks.cancel_all()
        self._events.emit(self.name, "supervisor_detached")

    # --- one child ------------------------------------------------------------------------------------------

    async def start_child(self, name: str, cause: str = "asked to start", *, reset: bool = False) -> None:
        """Start a child for the reason `cause`, even if it was stopped by hand. Wait for its launch to end.

        If the child is in BACKOFF, or its circuit breaker is open, return at once: it starts when its delay
        is over. `reset`, which only a person may ask for, ends the delay and closes the breaker. A failed
        launch raises no exception. Raises StopTimeout if a process of the child that is being stopped does
        not end, and SupervisorStopped after `stop` or `detach`.
        """
        child = self._child_to_start(name)
        child.send(Start(cause, reset))
        await self._wait_while_stopping(child)
        await child.wait_for_launch()

    async def stop_child(self, name: str, cause: str = "asked to stop") -> None:
        """Stop a child for the reason `cause`, and wait until its process has ended. It stays stopped until
        `start_child`, even under a later supervisor with the same `store`. Raises StopTimeout if it does not
        end.
        """
        child = self._child(name)
        child.send(Stop(cause, by_hand=True))
        await self._wait_while_stopping(child)
        await child.wait_for_predecessors()

    async def restart_child(self, name: str, cause: str = "asked to restart", *, reset: bool = False) -> None:
        """Restart a child for the reason `cause`, and wait until its launch has succeeded or failed.

        This restart counts neither for the backoff delay nor for the limit on restarts. A child in BACKOFF,
        or with an open circuit breaker, starts no earlier than otherwise, unless `reset` ends the delay and
        closes the breaker. Raises StoppedByHand if a person stopped the child, and what `start_child` raises.
        """
        child = self._child_to_start(name)
        if child.lifecycle.stopped_by_hand:
            raise StoppedByHand(f"{name} was stopped by hand; start it to have it back", child=name)
        child.send(Restart(cause, reset))
        await self._wait_while_stopping(child)
        await child.wait_for_launch()

    async def hand_over_child(self, name: str) -> None:
        """Launch a successor while a child's process serves, and wait until the successor serves instead.

        The predecessor stays until its clients have what they wait for (see `handover.plan`). Raises
        HandoverRefused if no successor takes over; the process then goes on as before. Raises
        SupervisorStopped if the supervisor was stopped.
        """
        await self._child_to_start(name).hand_over()

    async def check_health(self, name: str) -> ProbeResult | None:
        """Ask a child until it has answered, or is known to be busy or hung, and return the result.

        Return None if the child is not up, or if its process was replaced meanwhile. The child is not
        restarted.
        """
        return await self._child(name).check_health()

    async def wait_for(self, name: str, states: Collection[State], timeout_s: float) -> ChildStatus:
        """Wait for one of `states`, and return the child's status. Raises WaitTimeout after `timeout_s`."""
        child = self._child(name)
        wanted = frozenset(states)
        if child.lifecycle.state not in wanted:
            try:
                await self._waiters.wait(name, wanted, timeout_s)
            except TimeoutError as error:
                raise wait_timeout(name, child.lifecycle, wanted, timeout_s) from error
        return child.status()

    async def _keep_files(self) -> None:
        """Write PID files and saved state that are missing or were changed, once a second until cancelled."""
        while True:
            await next_tick(SystemClock(), _KEEP_FILES_S)
            for child in self._children.values():
                child.keep_files()
            if self._store is not None:
                self._store.keep()

    def _child_to_start(self, name: str) -> Child:
        if self._stopped:  # nobody would stop the process that it starts
            raise SupervisorStopped(f"{name} was not started, because its supervisor was stopped", child=name)
        return self._child(name)

    def _child(self, name: str) -> Child:
        try:
            return self._children[name]
        except KeyError:
            known = ", ".join(self._children) or "none"
            raise UnknownChild(f"there is no child {name!r}; there are: {known}", child=name) from None

    async def _wait_while_stopping(self, child: Child) -> None:
        """Wait until the child is not in STOPPING. Raises StopTimeout if SIGKILL does not end its process."""
        policy = child.spec.policy
        limit_s = max(policy.stop_timeout(planned=True), policy.stop_timeout(planned=False)) + _STUCK_S
        try:
            await self.wait_for(child.name, frozenset(State) - {State.STOPPING}, limit_s)
        except WaitTimeout as error:
            message = f"{child.name} (PID {child.lifecycle.pid}) did not end, not even on SIGKILL"
            raise StopTimeout(message, child=child.name) from error

    # --- what the children report ---------------------------------------------------------------------------

    def _child_changed(self, child: Child) -> None:
        self._waiters.notify(child.name, child.lifecycle.state)
        self._report_giving_up(child)
        self._instruct_soon()

    def _report_giving_up(self, child: Child) -> None:
        """Emit an event when a child becomes OPEN or FAILED, and when it recovers from that."""
        name, now = child.name, child.lifecycle
        if now.state in GAVE_UP and name not in self._gave_up:
            self._gave_up[name] = now.cause if now.state is State.OPEN else now.detail
            fields: dict[str, Any] = {"child": name, "state": str(now.state)}
            self._events.emit(self.name, "supervisor_gave_up", self._gave_up[name], **fields)
        elif name in self._gave_up and (now.up or (now.state is State.STOPPED and not now.wanted)):
            del self._gave_up[name]
            self._events.emit(self.name, "supervisor_recovered", "", child=name)

    def _child_died(self, child: Child) -> None:
        self._group = self._group.child_died(child.name)

    def _instruct_soon(self) -> None:
        """Have the restart strategy instruct the children (`_instruct`) in the event loop's next turn,
        because a child is still handling an input.
        """
        if self._group.coupled and not self._instruction_due:
            self._instruction_due = True
            asyncio.get_running_loop().call_soon(self._instruct)

    def _instruct(self) -> None:
        """Send the children the inputs that the restart strategy (`SiblingGroup.decide`) returns. If the
        group enters another phase, call `decide` again at once, because that phase may need further inputs.
        """
        self._instruction_due = False
        phase = None
        while self._running and phase is not self._group.phase:
            phase = self._group.phase
            children = {name: child.lifecycle for name, child in self._children.items()}
            self._group, instructions = self._group.decide(children)
            for name, instruction in instructions:
                self._children[name].send(instruction)

    def _publish(self, event: Event) -> None:
        try:
            self._on_event(event)
        except Exception:  # an error in the receiver must not prevent a restart
            _log.exception("on_event failed for %s", event.event)
