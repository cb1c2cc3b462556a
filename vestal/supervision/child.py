"""One supervised child: reports events to its pure lifecycle, and carries out the actions that the lifecycle
returns.

Everything runs on one event loop. `Child.send` is the only place that changes the child's state.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from functools import partial

from vestal.supervision.child_spec import ChildSpec, ProcessHandle
from vestal.supervision.child_status import status_of, trial_at
from vestal.supervision.clock import Clock
from vestal.supervision.event_stream import EventStream
from vestal.supervision.handover.child_handovers import ChildHandovers
from vestal.supervision.lifecycle.actions import (
    Action,
    Emit,
    Kill,
    Launch,
    RestartSiblings,
    SaveState,
    Terminate,
)
from vestal.supervision.lifecycle.child_state import initial_state
from vestal.supervision.lifecycle.inputs import (
    Exited,
    Input,
    Launched,
    MachineWoke,
    ProcessFound,
    ProcessReplaced,
    Start,
    Stop,
    StopAndHold,
    TimerFired,
)
from vestal.supervision.lifecycle.probe import ProbeResult
from vestal.supervision.lifecycle.saved_state import restore, to_record
from vestal.supervision.lifecycle.states import ChildStatus
from vestal.supervision.lifecycle.transition import step
from vestal.supervision.named_tasks import NamedTasks
from vestal.supervision.probing import ChildProbes
from vestal.supervision.processes.child_process import ChildProcess
from vestal.supervision.state_store import StateStore
from vestal.supervision.timer import Timer

_DETACH_TIMEOUT_S = 5.0
_STUCK_PREDECESSOR_S = 10.0


class Child:
    """One supervised child: its process, its state, and the tasks that watch the process.

    The attribute `lifecycle` is the child's state, a ChildState. At each input (a request, a probe's result,
    the end of the process, and so on), the function `vestal.supervision.lifecycle.transition.step` returns
    the state that replaces it. `store` keeps what the next supervisor must know, such as an open circuit
    breaker; with None, nothing is kept. `coupled` says whether the child's death may also restart siblings.
    `on_change` is called after each input, and `on_restart_siblings` when the child died and is coupled.
    """

    def __init__(
        self,
        spec: ChildSpec,
        clock: Clock,
        events: EventStream,
        store: StateStore | None,
        *,
        coupled: bool,
        on_change: Callable[[Child], None],
        on_restart_siblings: Callable[[Child], None],
    ) -> None:
        self.spec = spec
        self._clock = clock
        self._events = events
        self._store = store
        self._on_change = on_change
        self._on_restart_siblings = on_restart_siblings
        self._process = ChildProcess(spec, partial(events.emit, spec.name))
        self._handovers = ChildHandovers(
            spec, clock, self._process, partial(events.emit, spec.name), self._make_child_process
        )
        self._inbox: deque[Input] = deque()
        self._tasks = NamedTasks(spec.name)
        self._timer = Timer(clock, self._tasks, lambda: self.send(TimerFired()))
        self._probes = ChildProbes(spec, clock, self._tasks, lambda: self.lifecycle, self.send)
        self._state_since = clock.wall()
        self.lifecycle = initial_state(
            spec.policy,
            restart=spec.restart,
            fatal_exit_codes=spec.fatal_exit_codes,
            has_ready_probe=spec.ready is not None,
            has_health_probe=spec.health is not None,
            coupled=coupled,
        )

    @property
    def name(self) -> str:
        """Return the name in the child spec."""
        return self.spec.name

    @property
    def trial_at(self) -> float | None:
        """Return the monotonic time at which the next trial start of the child's circuit breaker is due.

        During a trial, return when it began. None if the breaker is closed, or if no trial will follow.
        """
        return trial_at(self.lifecycle)

    def status(self) -> ChildStatus:
        """Return the status of the child for people and programs."""
        return status_of(self.lifecycle, self._state_since, self._clock.now())

    # --- requests of the supervisor -------------------------------------------------------------------------

    def begin(self, on_hold: bool) -> None:
        """Restore the saved state, then adopt the process of an earlier supervisor, or start one.

        With `on_hold`, the child starts after the input ReleaseHold. A child stopped by hand is not started.
        """
        if self._store is not None and self.lifecycle.run == 0:
            record = self._store.load(self.name)
            self.lifecycle = restore(self.lifecycle, record, self._clock.now(), self._clock.wall())
        found = self._found_process()
        self._handovers.resume(self.lifecycle)
        if self.lifecycle.stopped_by_hand:
            self._handovers.cancel()
        if found or self.lifecycle.stopped_by_hand:
            return
        if on_hold:
            self.send(StopAndHold("it waits until those before it are up"))
        self.send(Start("the supervisor started"))

    def _found_process(self) -> bool:
        """Look for a process that an earlier supervisor launched, report it to the lifecycle, and return
        whether there is one.
        """
        if self.lifecycle.alive:
            return False
        found = self._process.find_running(self._handovers.noted_pids())
        if found is None:
            return False
        pid, age_s = found
        self.send(ProcessFound(pid, age_s, adopt=self.spec.adopt))
        self._tasks.run("exit", self._await_exit(self.lifecycle.run))
        return True

    def machine_woke(self, slept_s: float) -> None:
        """Report to the lifecycle that the machine has slept. If the child is up, probe its health now."""
        self.send(MachineWoke(slept_s))
        self._probes.forget()
        self._probes.check_now()

    async def check_health(self) -> ProbeResult | None:
        """Probe the health of the process until it has answered, or is known to be busy or hung.

        Return the last result; None if the child is not up or has no health probe, or if its process ended or
        was replaced meanwhile. A failure is not reported to the lifecycle: the caller decides what to do.
        """
        return await self._probes.check_health()

    @property
    def predecessors(self) -> list[int]:
        """Return the PIDs of the processes that were asked to hand over to a successor and have not ended."""
        return self._handovers.predecessors()

    async def hand_over(self) -> None:
        """Launch a successor while the process serves, and wait until the successor serves in its place.

        Raises HandoverRefused if no successor takes over; the process then goes on as before.
        """
        await self._handovers.hand_over(lambda: self.lifecycle)

    async def wait_for_predecessors(self) -> None:
        """Wait until every predecessor, which was asked to hand over to a successor, has ended, and also
        every successor that did not take over. The child's present process is not waited for.

        The wait lasts at most 10 s longer than the policy's `stop_timeout_s`, because a process may survive
        even SIGKILL.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.spec.policy.stop_timeout_s + _STUCK_PREDECESSOR_S):
                await self._handovers.wait_over()

    def keep_files(self) -> None:
        """Write the PID file of a running process again if the file is missing or was changed."""
        self._process.keep_files()

    async def wait_for_launch(self) -> None:
        """Wait until no launch is under way."""
        await self._tasks.wait("launch")

    async def detach(self) -> None:
        """Stop supervising the child, and leave its process running.

        A launch that is under way, also one of a successor, is awaited, because otherwise it would leave a
        process without a PID file.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_DETACH_TIMEOUT_S):
                await self.wait_for_launch()
                await self._handovers.wait_for_launch()
        await self._handovers.detach()
        await self._tasks.cancel_all()
        self._timer.set(None)
        self._process.detach()

    # --- inputs and actions ---------------------------------------------------------------------------------

    def send(self, received: Input) -> None:
        """Pass an input to the lifecycle, and carry out the actions that follow.

        An input that arrives while another one is handled waits in the inbox until that is done.
        """
        self._inbox.append(received)
        if len(self._inbox) > 1:
            return
        while self._inbox:
            try:
                self._handle(self._inbox[0])
            finally:
                self._inbox.popleft()

    def _handle(self, received: Input) -> None:
        before = self.lifecycle
        self.lifecycle, actions = step(before, received, self._clock.now())
        if self.lifecycle.state is not before.state:
            self._state_since = self._clock.wall()
        for action in actions:
            self._carry_out(action)
        self._timer.set(self.lifecycle.timer_at)
        self._probes.update()
        if isinstance(received, Stop):
            self._handovers.cancel()
        self._handovers.child_changed(self.lifecycle)
        self._on_change(self)

    def _carry_out(self, action: Action) -> None:
        match action:
            case Launch(run):
                self._tasks.run("launch", self._launch(run))
            case Terminate():
                self._process.terminate()
            case Kill():
                self._process.kill()
            case Emit(event, cause, fields):
                self._events.emit(self.name, event, cause, **fields)
            case SaveState():
                self._save_state()
            case RestartSiblings():
                self._on_restart_siblings(self)

    def _save_state(self) -> None:
        if self._store is None:
            return
        record = to_record(self.lifecycle, self._clock.now(), self._clock.wall())
        if error := self._store.save(self.name, record):
            self._events.emit(self.name, "state_not_saved", str(error))

    # --- the process ----------------------------------------------------------------------------------------

    async def _launch(self, run: int) -> None:
        result = await self._process.launch_run(run, self._handovers.environment)
        self.send(result)
        if isinstance(result, Launched):
            self._tasks.run("exit", self._await_exit(run))

    def _make_child_process(self, successor: ProcessHandle) -> ProcessHandle:
        """Make `successor` the child's process, and return the process that was the child's before."""
        self._tasks.cancel("exit")
        predecessor = self._process.replace(successor)
        self._probes.forget()
        self.send(ProcessReplaced(successor.pid))
        self._tasks.run("exit", self._await_exit(self.lifecycle.run))
        return predecessor

    async def _await_exit(self, run: int) -> None:
        status, last_line = await self._process.wait()
        self.send(Exited(run, status, last_line, self._was_productive()))

    def _was_productive(self) -> bool:
        """Return whether the process that has just ended had served any request."""
        if self.spec.productive is None or self.lifecycle.pid is None:
            return False
        return self.spec.productive(self.lifecycle.pid)
