"""Which model is loaded next, which requests wait for it, and for how long."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mlx_server.engine.errors import EngineError, InsufficientMemory
from mlx_server.engine.memory.ledger import Fits
from mlx_server.engine.memory.refusals import MustWait
from mlx_server.engine.memory.wait_policy import OTHERS_S, RETRY_S, WaitPolicy
from mlx_server.engine.scheduling.loads import Evict, LoadAdvanced, LoadCompleted, LoadRefused, Loads
from mlx_server.engine.scheduling.request import Request, RequestStatus
from mlx_server.engine.scheduling.request_table import EngineRequests
from mlx_server.model_store import BrokenModel, ModelEntry
from mlx_server.protocol import Embed, Generate, Load


def entry(name: str) -> ModelEntry:
    return ModelEntry(name, Path(name), "generate", 1, 1, 0.0, "mlx", "llama", "", "", 10, digest=name)


class FakeGuard:
    """Decides as `decisions` says: `Fits`, or an exception to raise, by model."""

    def __init__(self) -> None:
        self.decisions: dict[str, Fits | Exception] = {}
        self.relieved: list[Fits] = []
        self.ended = 0

    def before_load(self, entry: ModelEntry, leaving: Any = ()) -> Fits:
        decision = self.decisions.get(entry.name, Fits())
        if isinstance(decision, Exception):
            raise decision
        return decision

    def load_ended(self) -> None:
        self.ended += 1

    def relieve(self, fits: Fits) -> None:
        self.relieved.append(fits)


class FakeModels:
    """`evictions` is what `evictions_for` returns."""

    def __init__(self) -> None:
        self.evictions: list[Any] | None = []
        self.loaded = {name: SimpleNamespace(entry=entry(name)) for name in ("old", "older")}

    def for_new_request(self, name: str) -> None:
        return None

    def evictions_for(self, entry: ModelEntry) -> list[Any] | None:
        return self.evictions

    def get(self, name: str) -> Any:
        return self.loaded.get(name)

    def all(self) -> list[Any]:
        return list(self.loaded.values())


class World:
    """Loads over fakes; carries out what they yield as the scheduler does."""

    def __init__(self, max_wait_s: float = 0.0) -> None:
        self.now, self.requests = 100.0, EngineRequests()
        self.guard, self.models, self.started = FakeGuard(), FakeModels(), list[str]()
        self.failed: list[str] = []
        catalog = ([entry("a"), entry("b")], [BrokenModel("bad", "bad/model.safetensors: cut off")])
        anything: Any = self
        self.loads = Loads(
            self.requests,
            lambda: catalog,
            anything.models,
            anything.guard,
            WaitPolicy(max_wait_s),
            self.start,
        )

    def start(self, of: ModelEntry) -> Any:
        self.started.append(of.name)

        def loader() -> Any:
            yield 0.5
            return "weights"

        return loader()

    def ask(self, *models: str, **emitted: tuple[int, ...]) -> list[Any]:
        for name in models:
            self.requests.add(Request(Load(f"load {name} {len(self.requests)}", name)))
        for name, tokens in emitted.items():
            self.requests.add(Request(Generate(f"resume {name}", name, "text", emitted=tokens)))
        return self.step()

    def step(self) -> list[Any]:
        outcomes = []
        for outcome in self.loads.step(lambda: self.now):
            outcomes.append(outcome)
            if isinstance(outcome, LoadRefused):
                self.failed += self.finish(outcome.model)
            elif isinstance(outcome, LoadCompleted):
                self.finish(outcome.entry.name)
        return outcomes

    def finish(self, model: str) -> list[str]:
        requests = self.requests.select(RequestStatus.WAITING_FOR_MODEL, model=model)
        for request in requests:
            self.requests.finish(request)
        return [request.id for request in requests]


@pytest.fixture
def world() -> World:
    return World()


def no_room(held_by_requests: bool = True) -> MustWait:
    return MustWait(InsufficientMemory("no room", retryable=True), held_by_requests=held_by_requests)


def test_one_model_load_serves_all_requests_that_wait_for_the_model(world):
    assert world.ask("a", "a", "b") == [LoadAdvanced("a", 0.0)]
    assert world.loads.loading == "a"
    (completed,) = world.step()
    assert (completed.entry.name, completed.weights) == ("a", "weights")
    assert world.started == ["a"]
    assert world.guard.ended == 1
    assert world.step() == [LoadAdvanced("b", 0.0)]


def test_model_load_evicts_models_over_the_model_count_limit_and_models_whose_memory_it_needs(world):
    world.models.evictions = [world.models.loaded["old"]]
    world.guard.decisions["a"] = Fits(drop_caches=True, evict=("older",))
    evicted = [outcome.model.entry.name for outcome in world.ask("a") if isinstance(outcome, Evict)]
    assert evicted == ["old", "older"]
    assert [fits.evict for fits in world.guard.relieved] == [()]


def test_model_that_fits_memory_is_loaded_before_a_model_that_must_wait():
    world = World(max_wait_s=60.0)
    world.guard.decisions["a"] = no_room()
    assert world.ask("a", "b") == [LoadAdvanced("b", 0.0)]
    assert len(world.requests) == 2


def test_model_load_that_waited_too_long_is_refused_with_the_memory_guards_error(world):
    world.guard.decisions["a"] = no_room()
    (refused,) = world.ask("a")  # it may not wait at all
    assert isinstance(refused, LoadRefused)
    assert refused.error.code == "insufficient_memory"
    assert world.failed == ["load a 0"]
    world.guard.decisions["a"] = Fits()
    assert world.ask("a") == [LoadAdvanced("a", 0.0)]  # the refusal left no trace


@pytest.mark.parametrize(
    ("held_by_requests", "resumes", "limit_s"),
    [(True, False, 60.0), (False, False, OTHERS_S), (False, True, 60.0)],
)
def test_model_load_waits_less_long_for_memory_of_other_programs_than_of_requests_unless_it_resumes_an_answer(
    held_by_requests, resumes, limit_s
):
    world = World(max_wait_s=60.0)
    world.guard.decisions["a"] = no_room(held_by_requests)
    assert world.ask("a", **({"a": (1, 2)} if resumes else {})) == []
    world.now += limit_s - 1.0
    assert world.step() == []
    world.now += 1.0
    (refused,) = world.step()
    assert isinstance(refused, LoadRefused)


def test_model_load_for_a_text_to_embed_waits_longer_for_memory_if_an_engine_died_with_the_request():
    world = World(max_wait_s=60.0)
    world.guard.decisions["a"] = no_room(held_by_requests=False)
    world.requests.add(Request(Embed("e", "a", ("text",), resumed=True)))
    assert world.step() == []
    world.now += OTHERS_S + 1.0
    assert world.step() == []
    world.now += 60.0
    (refused,) = world.step()
    assert isinstance(refused, LoadRefused)


def test_request_after_a_cancelled_one_may_again_wait_the_full_time_for_memory_to_load_its_model():
    world = World(max_wait_s=60.0)
    world.guard.decisions |= {"a": no_room(), "b": no_room()}
    assert world.ask("a", "b") == []
    world.finish("a")
    world.now += 59.0
    assert world.step() == []
    world.now += 0.5
    assert world.ask("a") == []
    world.now += 30.0
    (refused,) = world.step()
    assert refused.model == "b"


def test_error_of_a_load_refused_for_too_many_loaded_models_names_the_max_loaded_models_setting(world):
    world.models.evictions = None
    (refused,) = world.ask("a")
    assert refused.error.code == "overloaded"
    assert "max_loaded_models" in str(refused.error)


def test_model_load_that_must_wait_for_memory_is_retried_after_a_delay():
    world = World(max_wait_s=60.0)
    world.guard.decisions["a"] = no_room()
    assert world.ask("a") == []
    assert world.loads.blocked(world.now)
    world.guard.decisions["a"] = Fits()
    world.now += RETRY_S / 2
    assert world.step() == []
    world.now += RETRY_S
    assert not world.loads.blocked(world.now)
    assert world.step() == [LoadAdvanced("a", 0.0)]


def test_abandoned_model_load_is_removed_and_releases_its_memory_reservation(world):
    world.ask("a")
    world.loads.abandon()
    assert world.loads.loading is None
    assert world.guard.ended == 1


@pytest.mark.parametrize(("name", "code"), [("nobody", "model_not_found"), ("bad", "model_load_failed")])
def test_load_of_a_missing_or_broken_model_is_refused_with_its_error_code(world, name, code):
    (refused,) = world.ask(name)
    assert isinstance(refused.error, EngineError)
    assert refused.error.code == code
    assert name in str(refused.error)
