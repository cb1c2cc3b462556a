"""Many requests on engines that are killed at random, with requests among them that kill engines themselves.

A simulation of gateway and engines: 20 steps a second; an engine starts in 0.5 s, replays a request in
0.5 s, and then gives it a token at each step.
"""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from mlx_server.gateway.requests.table.actions import FailRequest, SendToEngine
from mlx_server.gateway.requests.table.admission import Lane
from mlx_server.gateway.requests.table.crash_policy import KILLS_TO_FAIL, KILLS_TO_RUN_ALONE, EngineDeath
from mlx_server.gateway.requests.table.engine_wait import RequestLimits
from mlx_server.gateway.requests.table.request_table import RequestTable

STEP_S, START_STEPS, REPLAY_STEPS = 0.05, 10, 10
LONGEST_STEPS = 40_000


class Simulation:
    """`harmless` requests of `length` tokens each, and `killers`: at which token each ends its engine.

    `death` is what the gateway takes the end by a killer for. Somebody else kills engines, `kills_per_s`
    times a second, and the first `kills_at_replay` engines after each that gave a token.
    """

    def __init__(
        self,
        seed: int,
        harmless: int,
        killers: list[int],
        death: EngineDeath,
        kills_per_s: float,
        length: int,
    ) -> None:
        self.chance = random.Random(seed)
        self.table = RequestTable(RequestLimits(harmless + len(killers), 0, 120))
        self.kills_at = {f"killer{n}": at for n, at in enumerate(killers)}
        self.left = {f"harmless{n}" for n in range(harmless)} | set(self.kills_at)
        self.death, self.kills_per_s, self.length = death, kills_per_s, length
        self.received = dict.fromkeys(self.left, 0)
        self.failed: set[str] = set()
        self.deaths_by_killers = 0
        self.replaying: dict[str, int] = {}  # request on the engine -> steps before its next token
        self.starts_in = START_STEPS
        self.step = 0
        self.kills_at_replay = self.killed_at_replay = 0
        names = sorted(self.left)
        self.chance.shuffle(names)
        for name in names:
            self.carry_out(self.table.submit(name, name, Lane.GENERATE, 0.0))

    def carry_out(self, actions) -> None:
        for action in actions:
            match action:
                case SendToEngine(name):
                    self.replaying[name] = REPLAY_STEPS
                case FailRequest(name, code, _):
                    assert code == "engine_crashed"
                    self.failed.add(name)
                    self.left.discard(name)

    def run(self) -> Simulation:
        while self.left and self.step < LONGEST_STEPS:
            self.step += 1
            if self.chance.random() < self.kills_per_s * STEP_S:
                self.engine_dies(EngineDeath.UNKNOWN_KILL)
            elif self.starts_in > 0:
                self.starts_in -= 1
                if not self.starts_in:
                    self.carry_out(self.table.engine_ready())
            else:
                self.work()
        assert not self.left, f"not finished after {self.step * STEP_S:.0f} s: {sorted(self.left)}"
        return self

    def work(self) -> None:
        if self.replaying and self.killed_at_replay < self.kills_at_replay:
            self.killed_at_replay += 1
            self.engine_dies(EngineDeath.UNKNOWN_KILL)
            return
        for name in list(self.replaying):
            self.replaying[name] -= 1
            if self.replaying[name] > 0:
                continue
            if self.received[name] == self.kills_at.get(name):
                self.deaths_by_killers += 1
                self.engine_dies(self.death)
                return
            if self.received[name] == self.length:
                del self.replaying[name]
                self.left.discard(name)
                self.carry_out(self.table.finished(name))
                continue
            is_new, actions = self.table.take_token(name, self.received[name], 7)
            self.received[name] += is_new
            self.killed_at_replay = 0
            self.carry_out(actions)

    def engine_dies(self, death: EngineDeath) -> None:
        self.replaying.clear()
        self.starts_in = START_STEPS
        self.table.engine_lost(self.step * STEP_S)
        self.carry_out(self.table.engine_died(death))


SEEDS = st.integers(0, 2**32)


@given(seed=SEEDS, harmless=st.integers(1, 24), kills_per_s=st.sampled_from([0.04, 0.3, 1.0]))
@settings(max_examples=100, deadline=None)
def test_harmless_requests_never_fail_however_often_engines_are_killed_at_random(
    seed: int, harmless: int, kills_per_s: float
):
    simulation = Simulation(seed, harmless, [], EngineDeath.UNKNOWN_KILL, kills_per_s, length=40).run()
    assert not simulation.failed


@given(seed=SEEDS, harmless=st.integers(1, 6), kills=st.integers(1, 10))
@settings(max_examples=60, deadline=None)
def test_harmless_requests_never_fail_although_many_engines_are_killed_while_replaying_them(
    seed: int, harmless: int, kills: int
):
    simulation = Simulation(seed, harmless, [], EngineDeath.UNKNOWN_KILL, 0.2, length=40)
    simulation.kills_at_replay = kills
    assert not simulation.run().failed


@given(
    seed=SEEDS,
    harmless=st.integers(0, 6),
    killers=st.lists(st.integers(0, 60), min_size=1, max_size=3),
    kills_per_s=st.sampled_from([0.0, 0.1]),
)
@settings(max_examples=100, deadline=None)
def test_requests_that_abort_their_engine_fail_soon_and_all_other_requests_finish(
    seed: int, harmless: int, killers: list[int], kills_per_s: float
):
    simulation = Simulation(seed, harmless, killers, EngineDeath.OWN_FAULT, kills_per_s, length=80).run()
    assert simulation.failed == set(simulation.kills_at)
    assert simulation.deaths_by_killers <= 3 * len(killers)


@given(seed=SEEDS, harmless=st.integers(0, 6), killers=st.lists(st.integers(0, 60), min_size=1, max_size=3))
@settings(max_examples=60, deadline=None)
def test_requests_that_have_their_engine_killed_fail_even_if_no_cause_of_death_is_found_and_others_finish(
    seed: int, harmless: int, killers: list[int]
):
    """When macOS kills an engine for memory, no evidence is left by the time its death is judged."""
    simulation = Simulation(seed, harmless, killers, EngineDeath.UNKNOWN_KILL, 0.0, length=80).run()
    assert simulation.failed == set(simulation.kills_at)
    assert simulation.deaths_by_killers <= (KILLS_TO_RUN_ALONE + KILLS_TO_FAIL) * len(killers)
