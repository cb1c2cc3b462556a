"""The simulation of benchmarks/scale: requests are conserved, and queues behave as queueing theory says."""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Callable
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.scale.engine import Engine, PromptCache
from benchmarks.scale.events import EventLoop
from benchmarks.scale.fleet import Fleet, FleetSettings
from benchmarks.scale.parameters import EngineParameters, read_parameters
from benchmarks.scale.routing import Alone, FewestRequests, Placement, RoundRobin, Routing
from benchmarks.scale.workers import Workers
from benchmarks.scale.workload import Conversation, Turn

PARAMETERS = read_parameters()
FREQUENT = dataclasses.replace(
    PARAMETERS,
    failures=dataclasses.replace(
        PARAMETERS.failures, engine_every_s=120.0, machine_every_s=300.0, machine_back_s=60.0
    ),
)
ROUTINGS: list[Callable[[int], Routing]] = [
    lambda machines: Alone(),
    lambda machines: RoundRobin(),
    lambda machines: FewestRequests(),
    lambda machines: Placement(machines, 4),
    lambda machines: Placement(machines, 4, one_entry=True),
]


def run(machines: int, routing: Routing, seed: int, *, has_failures: bool, rotated: bool = False) -> Fleet:
    given = FleetSettings(machines, 60, 600, seed, has_failures=has_failures, rotated=rotated)
    fleet = Fleet(FREQUENT, given, routing)
    fleet.run()
    return fleet


@settings(max_examples=25)
@given(st.integers(1, 6), st.sampled_from(ROUTINGS), st.integers(0, 1000), st.booleans(), st.booleans())
def test_simulated_request_finishes_exactly_once_whichever_engines_die(
    machines: int, make: Callable[[int], Routing], seed: int, has_failures: bool, rotated: bool
):
    fleet = run(machines, make(machines), seed, has_failures=has_failures, rotated=rotated)

    assert all(turn.finishes == 1 for turn in fleet.turns)
    assert fleet.in_system == 0
    assert not any(node.engine.jobs or node.engine.waiting for node in fleet.nodes)
    for turn in fleet.turns:
        assert turn.first_token_at is not None and turn.finished_at is not None
        assert turn.arrived_at <= turn.first_token_at <= turn.finished_at
        assert math.isclose(turn.given, turn.answer_tokens, rel_tol=1e-3, abs_tol=1e-3)


@settings(max_examples=10)
@given(st.sampled_from(ROUTINGS), st.integers(0, 1000), st.booleans())
def test_simulated_fleet_obeys_littles_law(make: Callable[[int], Routing], seed: int, has_failures: bool):
    fleet = run(3, make(3), seed, has_failures=has_failures)

    stays_s = sum(turn.finished_at - turn.arrived_at for turn in fleet.turns if turn.finished_at is not None)
    assert math.isclose(fleet.turn_seconds, stays_s, rel_tol=1e-6, abs_tol=1e-6)


@given(st.integers(0, 1000))
@settings(max_examples=5)
def test_simulation_with_one_seed_repeats_its_figures_and_gives_every_routing_the_same_load(seed: int):
    first, again = (run(4, Placement(4, 4), seed, has_failures=True) for _ in range(2))
    other = run(4, RoundRobin(), seed, has_failures=False)

    assert [turn.finished_at for turn in first.turns] == [turn.finished_at for turn in again.turns]
    begun = [turn for turn in first.turns if turn.conversation.turn == 0 or turn.parts[-1][0].endswith(".0q")]
    assert sorted(turn.arrived_at for turn in begun) == sorted(
        turn.arrived_at for turn in other.turns if turn.parts[-1][0].endswith(".0q")
    )


def mean_wait_s(slots: int, load: float, draw_s: Callable[[random.Random], float], requests: int) -> float:
    """Return the mean wait for a slot of an engine whose step takes as long for one answer as for many."""
    token_s = 0.001
    flat = dataclasses.replace(
        PARAMETERS.engine, slots=slots, step_s={1: token_s}, prompt_tokens_per_s=1e12, cache_bytes=0
    )
    loop, draw = EventLoop(), random.Random(7)
    turns: list[Turn] = []
    engine = Engine(loop, flat, lambda turn: setattr(turn, "finished_at", loop.now))
    at = 0.0
    for number in range(requests):
        at += draw.expovariate(load * slots)  # the mean service takes a second
        tokens = max(1, round(draw_s(draw) / token_s))
        turn = Turn(Conversation(number, 0, [], 1), ((str(number), 1),), tokens, at)
        turns.append(turn)
        loop.at(at, partial(engine.submit, turn))
    loop.run()
    stays_s = sum(turn.finished_at - turn.arrived_at for turn in turns if turn.finished_at is not None)
    return (stays_s - sum(turn.answer_tokens for turn in turns) * token_s) / len(turns)


@pytest.mark.parametrize(
    ("name", "draw_s", "squared_variation"),
    [
        ("constant", lambda draw: 1.0, 0.0),
        ("exponential", lambda draw: draw.expovariate(1.0), 1.0),
    ],
)
def test_simulated_engine_with_one_slot_has_the_mean_wait_of_pollaczek_khinchine(
    name: str, draw_s: Callable[[random.Random], float], squared_variation: float
):
    load = 0.6
    expected_s = load / (1 - load) * (1 + squared_variation) / 2

    assert mean_wait_s(1, load, draw_s, 8000) == pytest.approx(expected_s, rel=0.12)


def test_simulated_engine_with_five_slots_has_the_mean_wait_of_erlang_c():
    slots, load = 5, 0.8
    offered = slots * load
    busy = offered**slots / math.factorial(slots) / (1 - load)
    waits_at_all = busy / (sum(offered**n / math.factorial(n) for n in range(slots)) + busy)
    expected_s = waits_at_all / (slots - offered)

    found_s = mean_wait_s(slots, load, lambda draw: draw.expovariate(1.0), 8000)

    assert found_s == pytest.approx(expected_s, rel=0.15)


def test_simulated_prompt_takes_longer_to_read_while_other_answers_run():
    def first_token_s(answers: int) -> float:
        loop = EventLoop()
        engine = Engine(loop, PARAMETERS.engine, lambda turn: None)
        for number in range(answers):
            engine.submit(Turn(Conversation(number, 0, [], 1), ((f"a{number}", 1),), 400, 0.0))
        late = Turn(Conversation(9, 0, [], 1), (("long", 2950),), 1, 5.0)
        loop.at(5.0, lambda: engine.submit(late))
        loop.run()
        assert late.first_token_at is not None
        return late.first_token_at - late.arrived_at

    speed, at_once = PARAMETERS.engine.prompt_tokens_per_s, PARAMETERS.engine.prompt_step_tokens
    assert first_token_s(0) == pytest.approx(2950 / speed)
    expected_s = 2950 / at_once * (at_once / speed + PARAMETERS.engine.step_for(3))
    assert first_token_s(3) == pytest.approx(expected_s, rel=0.02)


@given(st.lists(st.lists(st.integers(0, 5), min_size=1, max_size=4), max_size=30))
def test_simulated_prompt_cache_stays_within_its_size_and_evicts_suffixes_before_their_prefixes(
    prompts: list[list[int]],
):
    cache = PromptCache(1000)
    for prompt in prompts:
        parts = [("/".join(map(str, prompt[: end + 1])), 150) for end in range(len(prompt))]
        cache.store(parts)
        assert cache.cached_tokens(parts) == 150 * len(parts)  # what was stored last is whole
        assert cache.tokens <= 1000
    held = set(cache._parts)
    assert all(name.rpartition("/")[0] in held for name in held if "/" in name)


def test_simulated_conversation_stays_on_the_machine_that_cached_its_prefix_until_that_machine_dies():
    fleet = Fleet(PARAMETERS, FleetSettings(3, 60, 0.0), Placement(3, 4))
    routing, nodes = Placement(3, 4), fleet.nodes
    for node in nodes:
        node.look(0.5)
    busy = Turn(Conversation(0, 0, [], 1), (("other", 100),), 1, 0.0)
    for _ in range(PARAMETERS.engine.slots):
        nodes[0].engine.submit(busy)
    turn = Turn(Conversation(1, 0, [], 2), (("s", 1700), ("q", 100)), 10, 1.0)
    placed, _ = routing.place(turn, 0, nodes, 1.0)
    assert placed != 0

    nodes[0].engine.kill()
    nodes[0].engine.start()
    following = Turn(turn.conversation, (*turn.parts, ("a", 10), ("q2", 100)), 10, 2.0)
    assert routing.place(following, 0, nodes, 2.0) == (placed, 0.0)

    nodes[placed].is_alive = False
    here, delay_s = routing.place(following, 0, nodes, 2.5)
    assert here == 0 and delay_s > 0
    assert routing.place(following, 0, nodes, 3.0) == (0, 0.0)  # a refused peer is not asked again at once


@settings(max_examples=10)
@given(st.integers(1, 8), st.integers(0, 1000))
def test_simulated_task_finishes_exactly_once_although_workers_die_and_equal_seeds_give_equal_runs(
    count: int, seed: int
):
    workers = Workers(PARAMETERS.workers, count, share_of_calls=0.5, seconds=900, dies_every_s=300, seed=seed)
    workers.run()

    again = Workers(PARAMETERS.workers, count, share_of_calls=0.5, seconds=900, dies_every_s=300, seed=seed)
    again.run()
    assert [task.finished_at for task in again.tasks] == [task.finished_at for task in workers.tasks]
    assert all(task.finishes == 1 and task.done == len(task.calls_s) for task in workers.tasks)
    assert all(task.calls >= len(task.calls_s) for task in workers.tasks)


def test_simulation_with_more_workers_than_one_postgres_core_can_serve_is_refused():
    with pytest.raises(ValueError, match="one core of Postgres"):
        Workers(PARAMETERS.workers, 1000, share_of_calls=0.5, seconds=1)


def test_simulated_step_time_is_interpolated_between_and_beyond_the_measured_ones():
    engine: EngineParameters = dataclasses.replace(PARAMETERS.engine, step_s={1: 0.1, 4: 0.16, 8: 0.24})
    assert [engine.step_for(n) for n in (0, 1, 2, 4, 6, 10)] == pytest.approx([0, 0.1, 0.12, 0.16, 0.2, 0.28])
