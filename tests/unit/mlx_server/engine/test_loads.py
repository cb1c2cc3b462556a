"""Which model is loaded next, who must wait for it, and for how long."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mlx_server.engine.errors import EngineError, InsufficientMemory
from mlx_server.engine.memory.ledger import Fits
from mlx_server.engine.memory.refusals import MustWait
from mlx_server.engine.memory.wait_policy import WaitPolicy
from mlx_server.engine.scheduling import loads as loads_module
from mlx_server.engine.scheduling.loads import Advanced, Arrived, Evicted, Loads, Refused
from mlx_server.model_store import BrokenModel, ModelEntry
from mlx_server.protocol import Load


def entry(name: str) -> ModelEntry:
    return ModelEntry(name, Path(name), "generate", 1, 1, 0.0, "mlx", "llama", "", "", 10, digest=name)


class FakeGuard:
    """Answers as told: `Fits`, or an exception to raise, for each model."""

    def __init__(self) -> None:
        self.words: dict[str, Fits | Exception] = {}
        self.relieved: list[Fits] = []
        self.ended = 0

    def before_load(self, entry: ModelEntry, leaving: Any = ()) -> Fits:
        word = self.words.get(entry.name, Fits())
        if isinstance(word, Exception):
            raise word
        return word

    def load_ended(self) -> None:
        self.ended += 1

    def relieve(self, fits: Fits) -> None:
        self.relieved.append(fits)


class FakeModels:
    """`room` is what `room_for_one` answers."""

    def __init__(self) -> None:
        self.room: list[Any] | None = []
        self.held = {name: SimpleNamespace(entry=entry(name)) for name in ("old", "older")}

    def room_for_one(self) -> list[Any] | None:
        return self.room

    def get(self, name: str) -> Any:
        return self.held.get(name)

    def all(self) -> list[Any]:
        return list(self.held.values())


class World:
    def __init__(self) -> None:
        self.guard, self.models, self.started = FakeGuard(), FakeModels(), list[str]()
        catalog = ([entry("a"), entry("b")], [BrokenModel("bad", "bad/model.safetensors: cut off")])
        anything: Any = self
        self.loads = Loads(lambda: catalog, anything.models, anything.guard, WaitPolicy(0.0), self.start)

    def start(self, of: ModelEntry) -> Any:
        self.started.append(of.name)

        def loader() -> Any:
            yield 0.5
            return "weights"

        return loader()

    def ask(self, *names: str) -> list[Any]:
        for name in names:
            self.loads.waiting.add(Load(f"load {name}", name))
        return list(self.loads.step())


@pytest.fixture
def world() -> World:
    return World()


def no_room(behind_ours: bool = True) -> MustWait:
    return MustWait(InsufficientMemory("no room", retryable=True), behind_ours=behind_ours)


def test_one_load_answers_all_who_wait_for_the_model(world):
    assert world.ask("a", "a", "b") == [Advanced("a", 0.0)]
    outcomes = list(world.loads.step())
    arrived = next(outcome for outcome in outcomes if isinstance(outcome, Arrived))
    assert len(arrived.waiting) == 2
    assert world.started == ["a"]
    assert world.guard.ended == 1
    assert list(world.loads.step()) == [Advanced("b", 0.0)]


def test_models_leave_for_the_number_and_for_the_memory(world):
    world.models.room = [world.models.held["old"]]
    world.guard.words["a"] = Fits(drop_caches=True, evict=("older",))
    evicted = [outcome.held.entry.name for outcome in world.ask("a") if isinstance(outcome, Evicted)]
    assert evicted == ["old", "older"]
    assert [fits.evict for fits in world.guard.relieved] == [()]


def test_model_that_fits_passes_one_that_must_wait(world, monkeypatch):
    monkeypatch.setattr(world.loads, "_patience", WaitPolicy(60.0))
    world.guard.words["a"] = no_room()
    assert world.ask("a", "b") == [Advanced("b", 0.0)]
    assert len(world.loads.waiting) == 2


def test_wait_is_bounded_and_ends_with_the_guards_words(world):
    world.guard.words["a"] = no_room()
    (refused,) = world.ask("a")  # its patience is over at once
    assert isinstance(refused, Refused)
    assert refused.error.code == "insufficient_memory"
    assert [op.id for op in refused.waiting] == ["load a"]
    world.guard.words["a"] = Fits()
    assert world.ask("a") == [Advanced("a", 0.0)]  # no trace of it


def test_number_of_models_is_waited_for_no_longer(world):
    world.models.room = None
    (refused,) = world.ask("a")
    assert refused.error.code == "overloaded"
    assert "max_loaded_models" in str(refused.error)


def test_what_must_wait_is_looked_at_now_and_then_only(world, monkeypatch):
    monkeypatch.setattr(world.loads, "_patience", WaitPolicy(60.0))
    now = [100.0]
    monkeypatch.setattr(loads_module.time, "monotonic", lambda: now[0])
    world.guard.words["a"] = no_room()
    assert world.ask("a") == []
    assert world.loads.blocked
    now[0] += 1.0
    assert not world.loads.blocked


@pytest.mark.parametrize(("name", "code"), [("nobody", "model_not_found"), ("bad", "model_load_failed")])
def test_model_that_is_not_there_or_broken_is_refused_with_its_code(world, name, code):
    (refused,) = world.ask(name)
    assert isinstance(refused.error, EngineError)
    assert refused.error.code == code
    assert name in str(refused.error)
