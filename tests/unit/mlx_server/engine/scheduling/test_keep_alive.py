"""How long a model remains loaded, as its requests ask."""

from __future__ import annotations

import pytest

from mlx_server.engine.scheduling.loaded_models import LoadedModel
from mlx_server.protocol import Load, LoadedModelReport
from tests.unit.mlx_server.engine.scheduling.fake_backend import CHAT, FakeEngine, generate

DEFAULT_S = 60.0


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


def load(engine: FakeEngine, keep_alive_s: float | None, expires_in_s: float | None = None) -> None:
    engine.send(Load(f"load {engine.now}", CHAT, keep_alive_s, expires_in_s))
    engine.turn(5)


def use(engine: FakeEngine, keep_alive_s: float | None = None) -> None:
    id = f"use {engine.now}"
    engine.send(generate(id, keep_alive_s=keep_alive_s))
    engine.turn(5)
    assert engine.answers(id)


def report(engine: FakeEngine) -> LoadedModelReport:
    (found,) = engine.scheduler._models.reports(engine.now, {})
    return found


def model(engine: FakeEngine) -> LoadedModel | None:
    return engine.scheduler._models.get(CHAT)


@pytest.mark.parametrize("ask", [load, use])
def test_keep_alive_set_by_one_request_remains_in_force_after_requests_without_a_keep_alive(engine, ask):
    """A request of OpenAI's API, which has no keep-alive, once ended one of -1 of another client."""
    ask(engine, -1.0)
    use(engine)
    assert (report(engine).expires_in_s, report(engine).keep_alive_s) == (None, -1.0)
    engine.now += 3600.0
    engine.turn()
    assert model(engine) is not None
    use(engine, 30.0)
    engine.now += 1.0
    use(engine)
    engine.now += 31.0
    engine.turn()
    assert model(engine) is None


def test_model_whose_requests_set_no_keep_alive_is_unloaded_after_the_default_keep_alive(engine):
    use(engine)
    assert report(engine).keep_alive_s is None
    engine.now += DEFAULT_S + 1.0
    engine.turn()
    assert model(engine) is None


def test_model_reloaded_for_the_rest_of_its_keep_alive_has_the_whole_keep_alive_after_its_next_use(engine):
    load(engine, 1800.0, expires_in_s=7.0)
    assert report(engine).expires_in_s == pytest.approx(7.0)
    use(engine)
    assert report(engine).expires_in_s == pytest.approx(1800.0)
    load(engine, None, expires_in_s=5.0)
    engine.now += 6.0
    engine.turn()
    assert model(engine) is None


@pytest.mark.parametrize("expires_in_s", [None, 1.0])
def test_load_that_restores_an_older_keep_alive_does_not_replace_the_keep_alive_of_a_newer_request(
    engine, expires_in_s
):
    """A client asked for 30 s while the engine was down. Then -1 was restored, and the model stayed."""
    use(engine, 30.0)
    engine.send(Load("restore", CHAT, -1.0, expires_in_s, resumed=True))
    engine.turn(5)
    assert (report(engine).expires_in_s, report(engine).keep_alive_s) == (pytest.approx(30.0), 30.0)


def test_restored_keep_alive_takes_effect_if_no_request_has_set_a_keep_alive(engine):
    use(engine)
    engine.send(Load("restore", CHAT, -1.0, resumed=True))
    engine.turn(5)
    assert (report(engine).expires_in_s, report(engine).keep_alive_s) == (None, -1.0)
