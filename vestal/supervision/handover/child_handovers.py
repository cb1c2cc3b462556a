"""All handovers of one child. In a handover, a new process, the successor, takes over from the process that
serves, its predecessor.

A handover begins only after all earlier ones are decided: their successor took over, or did not. Their
predecessors may still run. At every moment, PID files name all these processes, so that the next supervisor
finds them if this one dies (here for the child `gateway`):

    gateway.json             the child's process
    gateway.successor-*      a successor that has not taken over; the next supervisor kills it
    gateway.predecessor-*    a process that the supervisor asks, by SIGUSR1, to hand over; the next supervisor
                             asks it again, because this one may have died before it asked

If a successor's or predecessor's file names the same process as gateway.json, the supervisor died between
writing the two files. The next supervisor then only removes the successor's or predecessor's file.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from dataclasses import replace

from vestal.supervision.child_spec import ChildSpec, ProcessHandle
from vestal.supervision.clock import Clock
from vestal.supervision.errors import HandoverRefused, LaunchError
from vestal.supervision.handover import plan
from vestal.supervision.handover.pid_files import HandoverFiles
from vestal.supervision.handover.plan import (
    Cancelled,
    PredecessorEnded,
    Stage,
    SuccessorEnded,
    SuccessorServes,
)
from vestal.supervision.handover.process_handover import ProcessHandover
from vestal.supervision.handover.successor import READY_FD_VARIABLE, SUCCEEDS_VARIABLE
from vestal.supervision.lifecycle.child_state import ChildState
from vestal.supervision.lifecycle.states import DOWN
from vestal.supervision.named_tasks import NamedTasks
from vestal.supervision.processes.child_process import ChildProcess
from vestal.supervision.processes.identity import ProcessIdentity, boot_id
from vestal.supervision.processes.process_group import reap

_STOPPED = "it was stopped"


class ChildHandovers:
    """Begins and follows the handovers of one child, in which a successor takes over from the process that
    serves.

    `process` is the child's present process. `make_child` makes a successor the child's process in its place,
    and returns the process that was replaced. `emit(event, cause)` publishes an event about the child. The
    owner calls `child_changed` whenever the child's state may have changed.
    """

    def __init__(
        self,
        spec: ChildSpec,
        clock: Clock,
        process: ChildProcess,
        emit: Callable[[str, str], object],
        make_child: Callable[[ProcessHandle], ProcessHandle],
    ) -> None:
        self._spec, self._clock, self._process, self._emit = spec, clock, process, emit
        self._make_child_process = make_child
        self._files = HandoverFiles(spec.pid_file)
        self._handovers: list[ProcessHandover] = []
        self._no_launch = asyncio.Event()
        self._no_launch.set()
        self._tasks = NamedTasks(f"{spec.name}:handovers")

    async def hand_over(self, current: Callable[[], ChildState]) -> None:
        """Start a successor, and wait until it serves. `current` returns the state of the child.

        Raises HandoverRefused, with the reason, if the successor does not take over.
        """
        child = current()
        policy, pid = self._spec.handover, child.pid
        if policy is None or pid is None or not child.up:
            raise self._refusal(f"it is {child.state} and has nothing to hand over")
        if not self._no_launch.is_set() or not all(each.decided.is_set() for each in self._handovers):
            raise self._refusal("another handover is under way; wait for its end")
        self._no_launch.clear()
        try:
            launched, reports = await self._launch(pid)
        finally:
            self._no_launch.set()
        handover = self._new()
        handover.begin(plan.begin(policy, self._clock.now()), launched, reports)
        self._emit("handover_began", f"PID {launched.pid} is to take over from PID {pid}")
        if not current().wanted:  # it was stopped during the launch, when there was no handover to cancel
            handover.send(Cancelled(_STOPPED))
        elif current().pid != pid or not current().up:
            handover.send(PredecessorEnded())
        await handover.decided.wait()
        if handover.plan.stage is Stage.REFUSED:
            raise self._refusal(handover.plan.why)

    def noted_pids(self) -> set[int]:
        """Return the PIDs of the processes that an earlier supervisor's PID files name as successors or
        predecessors in a handover of this child. The processes may have ended since.
        """
        return {identity.pid for role in ("successor", "predecessor") for identity in self._files.found(role)}

    def predecessors(self) -> list[int]:
        """Return the PIDs of the predecessors: processes that were asked to hand over and have not ended."""
        pids = [each.predecessor_pid for each in self._handovers]
        return [pid for pid in pids if pid is not None]

    def environment(self) -> Mapping[str, str]:
        """Return the environment variables to add when a process is launched outside a handover, such as for
        a restart.

        If a predecessor is still handing over, one variable holds the predecessor's PID, so that the launched
        process can wait for what the predecessor releases. Otherwise the result is empty.
        """
        taking = [each for each in self._handovers if each.plan.stage is Stage.TAKING_OVER]
        pids = [each.predecessor_pid for each in taking if each.predecessor_pid is not None]
        return {SUCCEEDS_VARIABLE: str(pids[-1])} if pids else {}

    def resume(self, child: ChildState) -> None:
        """Continue the handovers that an earlier supervisor began; its PID files name the processes. `child`
        is the child's state.

        Kill each successor that had not become the child's process. Ask each predecessor that is still
        running to hand over, because the earlier supervisor may have died before it asked. The child's
        present process, or the next one if there is none, takes over from the predecessor.
        """
        if self._spec.handover is None:
            return
        for identity in self._files.found("successor"):
            if identity.pid != child.pid and identity.alive():
                handle = self._process.adopt(identity)
                handle.kill()
                self._tasks.run(f"successor {identity.pid}", _reap_killed(handle))
            else:
                reap(identity)
            self._files.remove("successor", identity.pid)
        for identity in self._files.found("predecessor"):
            if identity.pid == child.pid:
                self._files.remove("predecessor", identity.pid)
            elif not identity.alive():
                reap(identity)
                self._files.remove("predecessor", identity.pid)
            else:
                self._emit("predecessor_found", f"PID {identity.pid} is asked again to hand over")
                resumed = plan.resume(self._spec.handover, self._clock.now())
                self._new().resume(resumed, self._process.adopt(identity))
        if child.alive:
            self.child_changed(child)

    def cancel(self) -> None:
        """End every process of the handovers except the child's own, because the child is to stop."""
        for each in self._handovers:
            each.send(Cancelled(_STOPPED))

    def child_changed(self, child: ChildState) -> None:
        """Report to undecided handovers that the child's process serves, no longer serves or has ended."""
        for each in list(self._handovers):
            stage = each.plan.stage
            if stage is Stage.PREPARING and not child.up:
                each.send(PredecessorEnded())
            elif stage is Stage.TAKING_OVER and child.up:
                each.send(SuccessorServes())
            elif stage is Stage.TAKING_OVER and child.state in DOWN:
                each.send(SuccessorEnded("its supervisor restarts it"))
            if each.over.is_set():
                self._handovers.remove(each)

    async def wait_for_launch(self) -> None:
        """If a successor is being launched, wait, without a time limit, until its handover has begun or its
        launch has failed.
        """
        await self._no_launch.wait()

    async def wait_over(self) -> None:
        """Wait, without a time limit, until every predecessor has ended, and also every successor that did
        not take over.
        """
        await self.wait_for_launch()
        for each in list(self._handovers):
            await each.over.wait()

    async def detach(self) -> None:
        """Stop following the handovers, which the next supervisor resumes."""
        await self._tasks.cancel_all()
        for each in self._handovers:
            await each.detach()
        self._handovers.clear()

    # --- one handover ---------------------------------------------------------------------------------------

    def _new(self) -> ProcessHandover:
        self._handovers = [each for each in self._handovers if not each.over.is_set()]
        handover = ProcessHandover(
            self._spec.name,
            self._clock,
            self._files,
            self._emit,
            self._make_child,
            self._process.last_words,
        )
        self._handovers.append(handover)
        return handover

    def _make_child(self, successor: ProcessHandle) -> ProcessHandle:
        """Make `successor` the child's process, and return the process that it replaces.

        Before that, write a PID file that records the present process as a predecessor.
        """
        present = self._process.handle
        assert present is not None
        self._files.write("predecessor", ProcessIdentity(present.pid, present.start_time, boot_id()))
        return self._make_child_process(successor)

    async def _launch(self, predecessor_pid: int) -> tuple[ProcessHandle, int]:
        """Launch the successor; return it, and the descriptor from which its reports are read.

        Raises HandoverRefused if it cannot be launched.
        """
        try:
            reports, written = os.pipe()
        except OSError as error:
            raise self._refusal(f"no pipe for its successor's reports: {error.strerror}") from error
        more_env = {SUCCEEDS_VARIABLE: str(predecessor_pid), READY_FD_VARIABLE: str(written)}
        spec = replace(self._spec, pass_fds=(*self._spec.pass_fds, written))
        try:
            return await self._process.launch_beside(spec, lambda: more_env), reports
        except BaseException as error:
            os.close(reports)
            if isinstance(error, LaunchError):
                raise self._refusal(error.message) from error
            raise
        finally:
            os.close(written)

    def _refusal(self, why: str) -> HandoverRefused:
        return HandoverRefused(f"{self._spec.name} was not replaced: {why}", child=self._spec.name)


async def _reap_killed(handle: ProcessHandle) -> None:
    await handle.wait()
