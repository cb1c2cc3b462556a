"""Any handover, with a supervisor that may die between any two of its actions.

The machine plays the world: gateways that are ready, hang, die, and release what they hold when they want to,
and what the supervisor has on disk. At any time at most one gateway accepts connections, and each is named
where the next supervisor finds it. In the end there is one gateway, which accepts.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from vestal.supervision import HandoverPolicy
from vestal.supervision.handover import plan
from vestal.supervision.handover.plan import (
    Action,
    AskToHandOver,
    Cancelled,
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

POLICY = HandoverPolicy(ready_timeout_s=60, release_timeout_s=30, linger_s=900, stop_timeout_s=10)


@dataclass
class Process:
    """A gateway. It accepts while it holds the lock; a gateway that waits takes the lock when it is free."""

    pid: int
    alive: bool = True
    waits: bool = False
    asked: bool = False
    hangs: bool = False


@dataclass
class Disk:
    """The PID files: of the child, of successors, of predecessors."""

    child: int = 0
    successors: set[int] = field(default_factory=set)
    predecessors: set[int] = field(default_factory=set)


class LifeOfHandovers(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.processes: dict[int, Process] = {}
        self.disk = Disk()
        self.holder: int | None = None
        self.child = self.launch().pid
        self.disk.child = self.child
        self.processes[self.child].waits = True
        self.settle_lock()
        self.handovers: list[tuple[Handover, int, int | None]] = []  # the plan, predecessor, successor
        self.dies_in_the_end = False
        self.actions_left: int | None = None  # the supervisor dies after this many more actions

    # --- the world ------------------------------------------------------------------------------------------

    def launch(self) -> Process:
        process = Process(len(self.processes) + 1)
        self.processes[process.pid] = process
        return process

    def settle_lock(self) -> None:
        if self.holder is not None and not self.processes[self.holder].alive:
            self.holder = None
        if self.holder is None:
            waiting = [p.pid for p in self.processes.values() if p.alive and p.waits and not p.asked]
            if waiting:
                self.holder = waiting[0]

    def kill(self, pid: int) -> None:
        self.processes[pid].alive = False
        self.settle_lock()

    @rule(data=st.data())
    def process_dies(self, data: st.DataObject) -> None:
        alive = [p.pid for p in self.processes.values() if p.alive]
        if alive:
            pid = data.draw(st.sampled_from(alive))
            self.kill(pid)
            self.notice_end(pid)

    @rule(data=st.data())
    def process_hangs(self, data: st.DataObject) -> None:
        alive = [p.pid for p in self.processes.values() if p.alive]
        if alive:
            self.processes[data.draw(st.sampled_from(alive))].hangs = True

    @rule()
    def asked_process_releases(self) -> None:
        holder = None if self.holder is None else self.processes[self.holder]
        if holder is not None and holder.asked and not holder.hangs:
            self.holder = None
            self.settle_lock()

    @rule()
    def released_process_ends(self) -> None:
        for process in list(self.processes.values()):
            if process.alive and process.asked and not process.hangs and process.pid != self.holder:
                self.kill(process.pid)
                self.notice_end(process.pid)

    # --- the supervisor -------------------------------------------------------------------------------------

    def notice_end(self, pid: int) -> None:
        """What the supervisor does when a process has ended: the child is started again."""
        self.disk.predecessors.discard(pid)
        self.disk.successors.discard(pid)
        for at, (handover, predecessor, successor) in list(enumerate(self.handovers)):
            if pid == predecessor:
                self.send(at, PredecessorEnded())
            elif pid == successor or (pid == self.child and handover.stage is Stage.TAKING_OVER):
                self.send(at, SuccessorEnded("it died"))
        if pid == self.child:
            fresh = self.launch()
            fresh.waits = True
            self.child = self.disk.child = fresh.pid
            self.settle_lock()

    def send(self, at: int, received: Input) -> None:
        handover, predecessor, successor = self.handovers[at]
        handover, actions = plan.step(handover, received, self.now)
        self.handovers[at] = (handover, predecessor, successor)
        self.carry_out_all(at, actions)

    def carry_out_all(self, at: int, actions: tuple[Action, ...]) -> None:
        for action in actions:
            if self.actions_left == 0:
                return
            if self.actions_left is not None:
                self.actions_left -= 1
            self.carry_out(at, action)

    def carry_out(self, at: int, action: Action) -> None:
        handover, predecessor, successor = self.handovers[at]
        match action:
            case MakeSuccessorTheChild():
                assert successor is not None
                assert self.child == predecessor
                self.disk.predecessors.add(predecessor)
                self.child = self.disk.child = successor
                self.disk.successors.discard(successor)
                self.handovers[at] = (handover, predecessor, None)
            case AskToHandOver():
                assert self.child != predecessor, "nobody would take over"
                self.processes[predecessor].asked = True
            case KillSuccessor():
                assert successor is not None
                assert successor not in (self.child, self.holder)
                self.kill(successor)
                self.notice_end(successor)
            case TerminatePredecessor():
                assert predecessor != self.child
                if not self.processes[predecessor].hangs:
                    self.kill(predecessor)
                    self.notice_end(predecessor)
            case KillPredecessor():
                assert predecessor != self.child
                assert self.processes[predecessor].asked, "it never had the chance to hand over"
                self.kill(predecessor)
                self.notice_end(predecessor)

    @precondition(lambda self: all(handover.decided for handover, _, _ in self.handovers))
    @rule()
    def begin(self) -> None:
        fresh = self.launch()
        self.disk.successors.add(fresh.pid)
        self.handovers.append((plan.begin(POLICY, self.now), self.child, fresh.pid))

    @rule()
    def successor_reports_that_it_is_ready(self) -> None:
        for at, (handover, _, successor) in enumerate(self.handovers):
            if successor is not None and handover.stage is Stage.PREPARING:
                process = self.processes[successor]
                if process.alive and not process.hangs:
                    process.waits = True
                    self.send(at, SuccessorReady())
        self.die_if_due()

    @rule()
    def child_answers(self) -> None:
        if self.holder == self.child and not self.processes[self.child].hangs:
            for at, (handover, _, _) in enumerate(self.handovers):
                if handover.stage is Stage.TAKING_OVER:
                    self.send(at, SuccessorServes())

    @rule(wait_s=st.sampled_from([1.0, 31.0, 61.0, 901.0]))
    def time_passes(self, wait_s: float) -> None:
        self.now += wait_s
        for at, (handover, _, _) in list(enumerate(self.handovers)):
            if handover.timer_at is not None and self.now >= handover.timer_at:
                self.send(at, TimerFired())
        self.die_if_due()

    @rule()
    def everything_but_the_child_is_to_end(self) -> None:
        for at in range(len(self.handovers)):
            self.send(at, Cancelled("it was stopped"))

    @rule(after=st.integers(0, 2))
    def supervisor_will_die_after_some_actions(self, after: int) -> None:
        self.actions_left = after

    @rule()
    def supervisor_will_die_in_the_end(self) -> None:
        self.dies_in_the_end = True

    def die_if_due(self) -> None:
        if self.actions_left == 0:
            self.supervisor_dies()

    @rule()
    def supervisor_dies(self) -> None:
        """The next supervisor knows only what is on disk, as ChildHandovers.resume reads it."""
        self.actions_left = None
        self.handovers.clear()
        self.child = self.disk.child
        for pid in sorted(self.disk.successors):
            if pid != self.child:
                self.kill(pid)
        self.disk.successors.clear()
        for pid in sorted(self.disk.predecessors):
            if pid == self.child or not self.processes[pid].alive:
                self.disk.predecessors.discard(pid)
                continue
            handover, actions = plan.resume(POLICY, self.now)
            self.handovers.append((handover, pid, None))
            self.carry_out_all(len(self.handovers) - 1, actions)

    # --- what must hold -------------------------------------------------------------------------------------

    @invariant()
    def every_process_is_named_on_disk(self) -> None:
        named = {self.disk.child} | self.disk.successors | self.disk.predecessors
        assert {p.pid for p in self.processes.values() if p.alive} <= named

    @invariant()
    def child_was_never_asked_to_hand_over(self) -> None:
        assert not self.processes[self.child].asked

    @invariant()
    def a_gateway_that_is_ready_to_serve_is_never_ended_for_another(self) -> None:
        assert self.processes[self.child].alive

    def teardown(self) -> None:
        """However the handover went, it ends with one gateway, which accepts connections."""
        if self.dies_in_the_end or self.actions_left is not None:
            self.supervisor_dies()
        for process in self.processes.values():
            if process.pid == self.child:
                process.hangs = False
        for _ in range(8):
            self.asked_process_releases()
            self.released_process_ends()
            self.child_answers()
            self.time_passes(901.0)
        assert [p.pid for p in self.processes.values() if p.alive] == [self.child]
        assert self.holder == self.child
        assert all(handover.over for handover, _, _ in self.handovers)
        assert (self.disk.successors, self.disk.predecessors) == (set(), set())


TestLifeOfHandovers = LifeOfHandovers.TestCase
