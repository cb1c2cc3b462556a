"""Carry out one handover: pass each thing that happens, such as the end of a process, to the handover's plan
as an input, and carry out the actions that the plan returns.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable

from vestal.supervision.child_spec import ProcessHandle
from vestal.supervision.clock import Clock
from vestal.supervision.handover import plan as plans
from vestal.supervision.handover import successor
from vestal.supervision.handover.pid_files import HandoverFiles
from vestal.supervision.handover.plan import (
    Action,
    AskToHandOver,
    Emit,
    Handover,
    Input,
    KillPredecessor,
    KillSuccessor,
    MakeSuccessorTheChild,
    PredecessorEnded,
    Stage,
    SuccessorEnded,
    SuccessorReady,
    SuccessorServes,
    TerminatePredecessor,
    TimerFired,
)
from vestal.supervision.named_tasks import NamedTasks
from vestal.supervision.processes.identity import ProcessIdentity, boot_id
from vestal.supervision.processes.start_time import start_time
from vestal.supervision.timer import Timer

HAND_OVER = signal.SIGUSR1
_READ_BYTES = 4096


class ProcessHandover:
    """Carries out one handover of a child, in which a new process, the successor, takes over from the process
    that serves, its predecessor. `plan.step` decides what to do.

    `name` is the child's, and `files` are the PID files of its handovers. `emit(event, cause)` publishes an
    event about the child. `make_child` makes the successor the child's process and returns the predecessor.
    `last_words` returns the last line that the successor wrote to its log. `decided` is set once it is known
    whether the successor takes over; `over`, once nothing is left to do.
    """

    def __init__(
        self,
        name: str,
        clock: Clock,
        files: HandoverFiles,
        emit: Callable[[str, str], object],
        make_child: Callable[[ProcessHandle], ProcessHandle],
        last_words: Callable[[], str],
    ) -> None:
        self._clock, self._files, self._emit = clock, files, emit
        self._make_child, self._last_words = make_child, last_words
        self._tasks = NamedTasks(f"{name}:handover")
        self._timer = Timer(clock, self._tasks, lambda: self.send(TimerFired()))
        self._successor: ProcessHandle | None = None
        self._predecessor: ProcessHandle | None = None
        self._reports: int | None = None
        self._unfinished_line = b""
        self._plan: Handover | None = None
        self.decided = asyncio.Event()
        self.over = asyncio.Event()

    @property
    def plan(self) -> Handover:
        """Return the present state of the handover."""
        assert self._plan is not None
        return self._plan

    @property
    def predecessor_pid(self) -> int | None:
        """Return the PID of a predecessor that was asked to hand over and has not ended, else None."""
        return None if self._predecessor is None else self._predecessor.pid

    def begin(self, started: Handover, launched: ProcessHandle, reports: int) -> None:
        """Begin the handover to the successor `launched`. `started` is the first state of the handover.

        The successor's reports are read from the file descriptor `reports`, which this object closes.
        """
        self._plan, self._successor, self._reports = started, launched, reports
        self._files.write("successor", _identity(launched))
        os.set_blocking(reports, False)
        asyncio.get_running_loop().add_reader(reports, self._read_reports, reports)
        self._tasks.run("successor", self._await_successor(launched))
        self._update()

    def resume(self, resumed: plans.Step, predecessor: ProcessHandle) -> None:
        """Continue a handover that an earlier supervisor began. `predecessor` is the process that has to hand
        over, and still runs.

        `resumed` is the handover's state and the actions to carry out now (see `plan.resume`).
        """
        self._plan, actions = resumed
        self._predecessor = predecessor
        self._tasks.run("predecessor", self._await_predecessor(predecessor))
        self._carry_out_all(actions)

    def send(self, received: Input) -> None:
        """Pass an input to the plan, and carry out the actions that follow."""
        self._plan, actions = plans.step(self.plan, received, self._clock.now())
        self._carry_out_all(actions)

    async def detach(self) -> None:
        """Stop following the handover. The predecessor runs on; the next supervisor finds it by its PID file.

        A successor that has not become the child's process yet is killed.
        """
        if self._successor is not None and self.plan.stage is Stage.PREPARING:
            self._successor.kill()
        self._close_reports()
        await self._tasks.cancel_all()
        for handle in (self._successor, self._predecessor):
            if handle is not None:
                handle.detach()

    # --- actions --------------------------------------------------------------------------------------------

    def _carry_out_all(self, actions: tuple[Action, ...]) -> None:
        for action in actions:
            self._carry_out(action)
        self._update()

    def _carry_out(self, action: Action) -> None:
        match action:
            case MakeSuccessorTheChild():
                self._make_successor_the_child()
            case AskToHandOver():
                self._signal_predecessor(HAND_OVER)
            case KillSuccessor():
                if self._successor is not None:
                    self._successor.kill()
            case TerminatePredecessor():
                if self._predecessor is not None:
                    self._predecessor.terminate()
            case KillPredecessor():
                if self._predecessor is not None:
                    self._predecessor.kill()
            case Emit(event, cause):
                self._emit(event, cause)

    def _make_successor_the_child(self) -> None:
        launched, self._successor = self._successor, None
        assert launched is not None
        self._tasks.cancel("successor")  # the child awaits its end from now on
        # In this order: a supervisor that dies in between leaves both processes named (see child_handovers).
        predecessor = self._make_child(launched)
        self._predecessor = predecessor
        self._files.remove("successor", launched.pid)
        self._tasks.run("predecessor", self._await_predecessor(predecessor))

    def _signal_predecessor(self, number: signal.Signals) -> None:
        handle = self._predecessor
        if handle is not None and start_time(handle.pid) in (None, handle.start_time):
            with contextlib.suppress(ProcessLookupError):
                os.kill(handle.pid, number)

    def _update(self) -> None:
        self._timer.set(None if self.plan.over else self.plan.timer_at)
        if self.plan.decided:
            self.decided.set()
        if self.plan.over and not self.over.is_set():
            self.over.set()
            self._close_reports()

    # --- what happens ---------------------------------------------------------------------------------------

    def _read_reports(self, descriptor: int) -> None:
        try:
            data = os.read(descriptor, _READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._close_reports()
        *lines, self._unfinished_line = (self._unfinished_line + data).split(b"\n")
        for line in lines:
            if line == successor.READY.encode():
                self.send(SuccessorReady())
            elif line == successor.SERVING.encode():
                self.send(SuccessorServes())

    def _close_reports(self) -> None:
        if self._reports is not None:
            asyncio.get_running_loop().remove_reader(self._reports)
            os.close(self._reports)
            self._reports = None

    async def _await_successor(self, launched: ProcessHandle) -> None:
        status = await launched.wait()
        self._files.remove("successor", launched.pid)
        words = self._last_words()
        self.send(SuccessorEnded(f"the new process ended with {status.describe()}{words and f': {words}'}"))

    async def _await_predecessor(self, handle: ProcessHandle) -> None:
        await handle.wait()
        self._files.remove("predecessor", handle.pid)
        self._predecessor = None
        self.send(PredecessorEnded())


def _identity(handle: ProcessHandle) -> ProcessIdentity:
    return ProcessIdentity(handle.pid, handle.start_time, boot_id())
