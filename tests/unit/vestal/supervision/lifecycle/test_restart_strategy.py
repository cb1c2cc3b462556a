"""The strategies, with children that are ready when launched and exit when terminated."""

from __future__ import annotations

from vestal.supervision import ExitStatus, ProbeResult, RestartPolicy, State, Strategy
from vestal.supervision.lifecycle.actions import Action, Launch, RestartSiblings, Terminate
from vestal.supervision.lifecycle.child_state import ChildState, initial_state
from vestal.supervision.lifecycle.inputs import (
    Exited,
    Input,
    Launched,
    ReadyProbed,
    Start,
    Stop,
    StopAndHold,
)
from vestal.supervision.lifecycle.restart_strategy import GroupPhase, SiblingGroup
from vestal.supervision.lifecycle.transition import step

POLICY = RestartPolicy(stable_after_s=0)
CRASH = ExitStatus(signal=11)


class SiblingsDriver:
    """Children a, b, c under one strategy. `log` lists launches (+a) and terminations (-a) in order.

    The children in `never_ready` are launched, but do not become ready.
    """

    def __init__(self, strategy: Strategy, never_ready: frozenset[str] = frozenset()) -> None:
        self.never_ready = never_ready
        self.log: list[str] = []
        self.group = SiblingGroup(strategy, ("a", "b", "c")).start_all()
        coupled = self.group.coupled
        self.children: dict[str, ChildState] = {n: initial_state(POLICY, coupled=coupled) for n in "abc"}
        for name in "abc":
            if coupled:
                self.send(name, StopAndHold())
            self.send(name, Start())
        self.instruct_until_steady()

    def send(self, name: str, received: Input) -> None:
        self.children[name], actions = step(self.children[name], received, 0.0)
        for action in actions:
            self.carry_out(name, action)

    def carry_out(self, name: str, action: Action) -> None:
        run = self.children[name].run
        match action:
            case Launch():
                self.log.append(f"+{name}")
                self.send(name, Launched(run, 1))
                if name not in self.never_ready:
                    self.send(name, ReadyProbed(run, ProbeResult(True)))
            case Terminate():
                self.log.append(f"-{name}")
                self.send(name, Exited(run, ExitStatus(signal=15)))
            case RestartSiblings():
                self.group = self.group.child_died(name)

    def instruct_until_steady(self) -> None:
        for _ in range(100):
            phase = self.group.phase
            self.group, instructions = self.group.decide(self.children)
            for name, instruction in instructions:
                self.send(name, instruction)
            if not instructions and phase is self.group.phase:
                return
        raise AssertionError("the strategy gives instructions without end")

    def die(self, name: str, status: ExitStatus) -> list[str]:
        """Let a child die, and return the launches and terminations that follow."""
        self.log.clear()
        self.send(name, Exited(self.children[name].run, status))
        self.instruct_until_steady()
        return self.log


def test_children_start_in_order_under_every_strategy():
    for strategy in Strategy:
        assert SiblingsDriver(strategy).log == ["+a", "+b", "+c"]


def test_strategy_one_for_one_restarts_only_the_dead_child():
    assert SiblingsDriver(Strategy.ONE_FOR_ONE).die("b", CRASH) == ["+b"]


def test_strategy_rest_for_one_stops_later_children_in_reverse_and_starts_them_in_order():
    assert SiblingsDriver(Strategy.REST_FOR_ONE).die("a", CRASH) == ["-c", "-b", "+a", "+b", "+c"]
    assert SiblingsDriver(Strategy.REST_FOR_ONE).die("b", CRASH) == ["-c", "+b", "+c"]
    assert SiblingsDriver(Strategy.REST_FOR_ONE).die("c", CRASH) == ["+c"]


def test_strategy_one_for_all_stops_all_children_in_reverse_and_starts_them_in_order():
    siblings = SiblingsDriver(Strategy.ONE_FOR_ALL)
    assert siblings.die("b", CRASH) == ["-c", "-a", "+a", "+b", "+c"]
    assert siblings.group.phase is GroupPhase.STEADY


def test_child_that_is_never_ready_prevents_later_children_from_starting():
    siblings = SiblingsDriver(Strategy.REST_FOR_ONE, never_ready=frozenset("b"))
    assert siblings.log == ["+a", "+b"]
    assert not siblings.children["c"].alive


def test_group_restart_skips_a_child_stopped_by_hand():
    siblings = SiblingsDriver(Strategy.ONE_FOR_ALL)
    siblings.send("b", Stop())
    siblings.instruct_until_steady()
    assert siblings.die("a", CRASH) == ["-c", "+a", "+c"]
    assert siblings.children["b"].state is State.STOPPED


def test_child_that_fails_for_good_stops_later_children_until_it_is_started_again():
    siblings = SiblingsDriver(Strategy.REST_FOR_ONE)
    assert siblings.die("b", ExitStatus(code=78)) == ["-c"]
    assert siblings.children["b"].state is State.FAILED
    siblings.send("b", Start())
    siblings.instruct_until_steady()
    assert siblings.log == ["-c", "+b", "+c"]


def test_death_of_a_child_while_its_group_starts_restarts_the_group_from_that_child_on():
    siblings = SiblingsDriver(Strategy.REST_FOR_ONE, never_ready=frozenset("b"))
    siblings.never_ready = frozenset()
    assert siblings.die("a", CRASH) == ["-b", "+a", "+b", "+c"]
    assert siblings.group.phase is GroupPhase.STEADY
