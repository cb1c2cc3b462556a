"""How long the scheduler waits for the next operation, and what it keeps between its turns."""

from __future__ import annotations

import gc
import time
import weakref

import pytest

from mlx_server.engine.scheduling import scheduler
from mlx_server.engine.scheduling.scheduler import TOGETHER_S
from mlx_server.protocol import Load
from tests.unit.mlx_server.engine.scheduling.fake_backend import (
    CHAT,
    EMBED,
    OTHER_CHAT,
    FakeEngine,
    embed,
    generate,
)


@pytest.fixture
def engine() -> FakeEngine:
    """Return an engine with two chat models and an embedding model in memory, on which nothing waits."""
    engine = FakeEngine(max_loaded_models=3)
    engine.send(Load("l", CHAT), Load("m", OTHER_CHAT), Load("n", EMBED))
    engine.turn(12)
    assert all(engine.answer(id) for id in "lmn")
    return engine


def took_s(work) -> float:
    started_s = time.monotonic()
    work()
    return time.monotonic() - started_s


@pytest.mark.parametrize("keep_alive_s", [0.0, 1.0])
def test_turn_pauses_while_a_request_waits_for_memory_although_the_keep_alive_of_its_model_is_over(
    engine, keep_alive_s
):
    """The MLX thread once turned 12,000 times a second until memory had room for the request."""
    engine.guard.places, engine.guard.held_by_requests = 0, False
    engine.send(generate("a", keep_alive_s=keep_alive_s))
    engine.turn(2)
    engine.now += 2.0
    engine.turn()  # its memory is tried again
    assert took_s(engine.scheduler.turn) > 0.05
    assert CHAT in [model.entry.name for model in engine.scheduler._models.all()]


def test_drain_waits_for_background_jobs_while_the_keep_alive_of_an_idle_model_is_over(engine):
    engine.send(generate("a", slow=True))
    engine.turn(2)
    engine.now += 100.0  # longer than every keep-alive
    turns, start_requests = list[float](), engine.scheduler._start_requests

    def start_and_count() -> None:
        start_requests()
        turns.append(engine.now)
        engine.now += 0.2

    engine.scheduler._start_requests = start_and_count
    assert took_s(lambda: engine.scheduler.drain(0.3)) > 2 * TOGETHER_S + 0.2
    assert len(turns) == 2


@pytest.mark.parametrize("keep_alive_s", [3600.0 * 9_999_999, 1e300])
def test_keep_alive_beyond_the_longest_wait_of_the_system_leaves_the_engine_running(
    engine, keep_alive_s, monkeypatch
):
    """A wait of 300 years raised OverflowError, which ended the engine."""
    monkeypatch.setattr(scheduler, "IDLE_S", 0.01)
    monkeypatch.setattr(scheduler, "LONGEST_WAIT_S", 0.05, raising=False)
    for n, name in enumerate((CHAT, OTHER_CHAT, EMBED)):
        engine.send(Load(f"again {n}", name, keep_alive_s))
    engine.turn(3)
    engine.scheduler.turn()
    assert len(engine.scheduler._models.all()) == 3


def test_free_memory_of_mlx_is_returned_and_reported_once_the_engine_is_idle(engine, monkeypatch):
    """Metal once kept the buffers of ended requests for as long as the engine ran."""
    monkeypatch.setattr(scheduler, "IDLE_S", 0.01)
    engine.cached_bytes = 3 << 40
    engine.turn()
    assert engine.engine_status.alive().footprint_bytes >= 3 << 40

    def wait_s() -> float:  # asked before the idle moment, and again for the long wait after it
        footprints.append(engine.engine_status.alive().footprint_bytes)
        return 0.02

    footprints = list[int]()
    monkeypatch.setattr(engine.scheduler, "_wait_s", wait_s)
    engine.scheduler.turn()
    assert engine.cached_bytes == 0
    assert [footprint < 3 << 40 for footprint in footprints] == [False, True]


@pytest.mark.parametrize("kind", ["embed", "count", "generate"])
def test_tokenized_text_of_finished_requests_is_freed_while_no_answer_runs(engine, kind):
    """Each such request once stayed in memory, and with it the weights of its embedding model."""
    jobs, tokenization_of = list[weakref.ref](), engine.tokenization_of

    def remember(op):
        job = tokenization_of(op)
        jobs.append(weakref.ref(job))
        return job

    engine.tokenization_of = remember
    for n in range(3):
        id = f"r{n}"
        engine.send(embed(id) if kind == "embed" else generate(id, count_only=kind == "count"))
        while not engine.answers(id):
            engine.turn()
    engine.turn()
    gc.collect()
    assert [job() for job in jobs] == [None] * 3
