"""The strategies over pure lifecycles: children that come up when launched and end when terminated."""

from __future__ import annotations

from dataclasses import replace

from vestal.supervision import ExitStatus, ProbeResult, RestartPolicy, State, Strategy
from vestal.supervision.lifecycle.child_state import ChildState, initial_state
from vestal.supervision.lifecycle.messages import (
    Action,
    Exited,
    Fell,
    Hold,
    Input,
    Launch,
    Launched,
    ReadyAnswered,
    Start,
    Stop,
)
from vestal.supervision.lifecycle.messages import Terminate as Term
from vestal.supervision.lifecycle.restart_strategy import Coupling, StrategyPhase
from vestal.supervision.lifecycle.transition import step

POLICY = RestartPolicy(stable_after_s=0)


class House:
    """Children a, b, c under one strategy; `seen` lists launches (+a) and ends (-a) in order."""

    def __init__(self, strategy: Strategy, stuck: frozenset[str] = frozenset()) -> None:
        self.stuck = stuck
        self.seen: list[str] = []
        self.coupling = Coupling(strategy, ("a", "b", "c")).starting()
        coupled = self.coupling.coupled
        self.models: dict[str, ChildState] = {n: initial_state(POLICY, coupled=coupled) for n in "abc"}
        for name in "abc":
            if coupled:
                self.tell(name, Hold())
            self.tell(name, Start())
        self.settle()

    def tell(self, name: str, news: Input) -> None:
        self.models[name], actions = step(self.models[name], news, 0.0)
        for action in actions:
            self.act(name, action)

    def act(self, name: str, action: Action) -> None:
        run = self.models[name].run
        match action:
            case Launch():
                self.seen.append(f"+{name}")
                self.tell(name, Launched(run, 1))
                if name not in self.stuck:
                    self.tell(name, ReadyAnswered(run, ProbeResult(True)))
            case Term():
                self.seen.append(f"-{name}")
                self.tell(name, Exited(run, ExitStatus(signal=15)))
            case Fell():
                self.coupling = self.coupling.fallen(name)

    def settle(self) -> None:
        for _ in range(100):
            phase = self.coupling.phase
            self.coupling, orders = self.coupling.decide(self.models)
            for name, order in orders:
                self.tell(name, order)
            if not orders and phase is self.coupling.phase:
                return
        raise AssertionError("the strategy never comes to rest")

    def dies(self, name: str, status: ExitStatus) -> list[str]:
        self.seen.clear()
        self.tell(name, Exited(self.models[name].run, status))
        self.settle()
        return self.seen


CRASH = ExitStatus(signal=11)


def test_start_is_in_order_under_every_strategy():
    for strategy in Strategy:
        assert House(strategy).seen == ["+a", "+b", "+c"]


def test_one_for_one_restarts_only_the_dead():
    assert House(Strategy.ONE_FOR_ONE).dies("b", CRASH) == ["+b"]


def test_rest_for_one_ends_those_after_it_last_first_and_starts_them_in_order():
    assert House(Strategy.REST_FOR_ONE).dies("a", CRASH) == ["-c", "-b", "+a", "+b", "+c"]
    assert House(Strategy.REST_FOR_ONE).dies("b", CRASH) == ["-c", "+b", "+c"]
    assert House(Strategy.REST_FOR_ONE).dies("c", CRASH) == ["+c"]


def test_one_for_all_ends_all_and_starts_all_in_order():
    house = House(Strategy.ONE_FOR_ALL)
    assert house.dies("b", CRASH) == ["-c", "-a", "+a", "+b", "+c"]
    assert house.coupling.phase is StrategyPhase.STEADY


def test_child_that_does_not_come_up_keeps_those_after_it_waiting():
    house = House(Strategy.REST_FOR_ONE, stuck=frozenset("b"))
    assert house.seen == ["+a", "+b"]
    assert not house.models["c"].alive


def test_child_stopped_by_hand_is_passed_over():
    house = House(Strategy.ONE_FOR_ALL)
    house.tell("b", Stop())
    house.settle()
    assert house.dies("a", CRASH) == ["-c", "+a", "+c"]
    assert house.models["b"].state is State.STOPPED


def test_child_that_failed_for_good_takes_its_dependents_down_and_its_start_brings_them_back():
    house = House(Strategy.REST_FOR_ONE)
    assert house.dies("b", ExitStatus(code=78)) == ["-c"]
    assert house.models["b"].state is State.FAILED
    house.tell("b", Start())
    house.settle()
    assert house.seen == ["-c", "+b", "+c"]


def test_death_while_rising_makes_the_group_fall_again_from_the_first():
    house = House(Strategy.REST_FOR_ONE, stuck=frozenset("b"))
    house.stuck = frozenset()
    assert house.dies("a", CRASH) == ["-b", "+a", "+b", "+c"]
    assert replace(house.coupling, first=0, cause="").phase is StrategyPhase.STEADY
