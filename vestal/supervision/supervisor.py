"""The supervisor: several children, started in order, stopped in reverse, restarted by a strategy (R3.8)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Iterable
from typing import Any

from vestal.supervision.child import Child
from vestal.supervision.child_spec import ChildSpec
from vestal.supervision.clock import Clock, SystemClock
from vestal.supervision.errors import SpecError, StoppedByHand, StopTimeout, UnknownChild, WaitTimeout
from vestal.supervision.event_stream import Event, EventStream
from vestal.supervision.lifecycle.messages import Renew, Start, Stop
from vestal.supervision.lifecycle.restart_strategy import Coupling
from vestal.supervision.lifecycle.states import ChildStatus, State, Strategy
from vestal.supervision.state_store import StateStore

_log = logging.getLogger(__name__)
_STUCK_S = 10.0  # past SIGKILL, before a stop says that the process does not end

GAVE_UP = frozenset({State.OPEN, State.FAILED})


def log_event(event: Event) -> None:
    """The default sink: one log line for each event."""
    told = "".join(f" {key}={value}" for key, value in event.fields.items())
    _log.info("%s %s%s%s", event.component, event.event, told, f" ({event.cause})" if event.cause else "")


class Supervisor:
    """Looks after children given by their specs, in that order. Use from one event loop.

    `on_event` hears everything, at once and in order; it must not block. With a `store`, breakers and stops
    by hand outlive this supervisor.
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
        self._events = EventStream(self._clock.wall, self._tell)
        self._waiters: list[tuple[str, Collection[State], asyncio.Future[None]]] = []
        self._running = False
        self._gave_up: dict[str, str] = {}
        self._order_due = False
        specs = tuple(specs)
        self._coupling = Coupling(strategy, tuple(spec.name for spec in specs))
        if len(set(self._coupling.names)) != len(specs):
            raise SpecError(f"two children have one name: {', '.join(self._coupling.names)}")
        self._children = {
            spec.name: Child(
                spec, self._clock, self._events, store, coupled=self._coupling.coupled,
                on_change=self._changed, on_fell=self._fell,
            )
            for spec in specs
        }  # fmt: skip

    @property
    def gave_up(self) -> dict[str, str]:
        """The children given up for now (breaker open) or for good (failed), each with the reason."""
        return dict(self._gave_up)

    def status(self) -> dict[str, ChildStatus]:
        """Every child, in start order."""
        return {name: child.status() for name, child in self._children.items()}

    # --- all of them ---------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Adopts or starts every child not stopped by hand. Returns once those that may start are launched.

        ONE_FOR_ONE launches all in order; otherwise each waits until the one before it is up.
        """
        self._running = True
        held = self._coupling.coupled
        for child in self._children.values():
            child.begin(held)
        self._coupling = self._coupling.starting()
        self._order()
        for child in self._children.values():
            await child.launched()

    async def stop(self) -> None:
        """Ends every child, last first, each one reaped before the next. Raises StopTimeout for one that
        does not end on SIGKILL, once all others are down."""
        self._running = False
        stuck: list[str] = []
        for child in reversed(self._children.values()):
            child.send(Stop("the supervisor stops", by_hand=False))
            try:
                await self._down(child)
            except StopTimeout as error:
                stuck.append(error.message)
        for child in self._children.values():
            await child.detach()
        self._events.emit(self.name, "supervisor_stopped")
        if stuck:
            raise StopTimeout("; ".join(stuck))

    def machine_woke(self, slept_s: float) -> None:
        """The machine has slept so long: failures from before do not count, and all is asked now."""
        if not self._running:  # it has not recalled yet what an earlier one knew, and must not write over it
            return
        self._events.emit(self.name, "machine_woke", slept_s=round(slept_s, 1))
        for child in self._children.values():
            child.machine_woke(slept_s)

    async def detach(self) -> None:
        """Leaves the children running, for the next supervisor to adopt by their PID files."""
        self._running = False
        for child in self._children.values():
            await child.detach()
        self._events.emit(self.name, "supervisor_detached")

    # --- one of them ---------------------------------------------------------------------------------------

    async def start_child(self, name: str, cause: str = "asked to start", *, reset: bool = False) -> None:
        """Starts it, also after a stop by hand. An open breaker stays open, unless a person says `reset`."""
        child = self._child(name)
        child.send(Start(cause, reset))
        await self._settled(child)

    async def stop_child(self, name: str, cause: str = "asked to stop") -> None:
        """Ends it, and keeps it stopped until `start_child`, also across supervisors with the same store."""
        child = self._child(name)
        child.send(Stop(cause, by_hand=True))
        await self._down(child)

    async def restart_child(self, name: str, cause: str = "asked to restart", *, reset: bool = False) -> None:
        """Ends and starts it again, not charged to backoff or intensity. Raises StoppedByHand.

        A child in backoff or behind an open breaker comes back in its own time, unless `reset`.
        """
        child = self._child(name)
        if child.model.by_hand:
            raise StoppedByHand(f"{name} was stopped by hand; start it to have it back", child=name)
        child.send(Renew(cause, reset))
        await self._settled(child)

    async def wait_for(self, name: str, states: Collection[State], timeout_s: float) -> ChildStatus:
        """Returns when the child is in one of `states`; raises WaitTimeout, which says what it is in."""
        child = self._child(name)
        wanted = frozenset(states)
        if child.model.state not in wanted:
            arrived: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            waiter = (name, wanted, arrived)
            self._waiters.append(waiter)
            try:
                async with asyncio.timeout(timeout_s):
                    await arrived
            except TimeoutError as error:
                raise self._waited_too_long(child, wanted, timeout_s) from error
            finally:
                self._waiters.remove(waiter)
        return child.status()

    def _waited_too_long(self, child: Child, wanted: frozenset[State], timeout_s: float) -> WaitTimeout:
        model = child.model
        detail = f": {model.detail}" if model.detail else ""
        hoped = " or ".join(sorted(wanted))
        message = f"{child.name} was not {hoped} within {timeout_s:g} s; it is {model.state}{detail}"
        return WaitTimeout(message, child=child.name, state=str(model.state))

    def _child(self, name: str) -> Child:
        try:
            return self._children[name]
        except KeyError:
            known = ", ".join(self._children) or "none"
            raise UnknownChild(f"there is no child {name!r}; there are: {known}", child=name) from None

    async def _settled(self, child: Child) -> None:
        """Whatever stop is under way is over, and a launch that follows is done."""
        if child.model.state is State.STOPPING:
            await self._no_longer_stopping(child)
        await child.launched()

    async def _down(self, child: Child) -> None:
        if child.model.state is State.STOPPING:
            await self._no_longer_stopping(child)

    async def _no_longer_stopping(self, child: Child) -> None:
        rest = frozenset(State) - {State.STOPPING}
        policy = child.spec.policy
        limit_s = max(policy.stop_timeout_s, policy.planned_stop_timeout_s or 0.0) + _STUCK_S
        try:
            await self.wait_for(child.name, rest, limit_s)
        except WaitTimeout as error:
            message = f"{child.name} (PID {child.model.pid}) did not end, not even on SIGKILL"
            raise StopTimeout(message, child=child.name) from error

    # --- what the children report --------------------------------------------------------------------------

    def _changed(self, child: Child) -> None:
        state = child.model.state
        for name, states, arrived in self._waiters:
            if name == child.name and state in states and not arrived.done():
                arrived.set_result(None)
        self._escalate(child)
        self._order_soon()

    def _escalate(self, child: Child) -> None:
        """Says so when it gives a child up: who runs this supervisor has to act."""
        name, model = child.name, child.model
        if model.state in GAVE_UP and name not in self._gave_up:
            self._gave_up[name] = model.cause if model.state is State.OPEN else model.detail
            fields: dict[str, Any] = {"child": name, "state": str(model.state)}
            self._events.emit(self.name, "supervisor_gave_up", self._gave_up[name], **fields)
        elif name in self._gave_up and (model.up or (model.state is State.STOPPED and not model.wanted)):
            del self._gave_up[name]
            self._events.emit(self.name, "supervisor_recovered", "", child=name)

    def _fell(self, child: Child) -> None:
        self._coupling = self._coupling.fallen(child.name)

    def _order_soon(self) -> None:
        """Not at once: the child that reports is still at it, and an order to it would wait for itself."""
        if self._coupling.coupled and not self._order_due:
            self._order_due = True
            asyncio.get_running_loop().call_soon(self._order)

    def _order(self) -> None:
        """Carries out what the strategy orders now; what that changes brings the next orders."""
        self._order_due = False
        phase = None
        while self._running and phase is not self._coupling.phase:
            phase = self._coupling.phase
            models = {name: child.model for name, child in self._children.items()}
            self._coupling, orders = self._coupling.decide(models)
            for name, order in orders:
                self._children[name].send(order)

    def _tell(self, event: Event) -> None:
        try:
            self._on_event(event)
        except Exception:  # a listener's fault must not keep a child from being restarted
            _log.exception("on_event failed for %s", event.event)
