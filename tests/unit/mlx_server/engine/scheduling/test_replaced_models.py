"""A loaded model whose files were replaced: running requests end with the old files, others get the new."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mlx_server.engine.memory.wait_policy import RETRY_S
from mlx_server.engine.scheduling.request import RequestStatus
from mlx_server.engine.scheduling.request_table import EngineRequests
from mlx_server.model_store import BrokenModel, ModelEntry
from mlx_server.model_store.catalog import changes
from mlx_server.protocol import Load, Loaded, Unloaded
from tests.unit.mlx_server.engine.scheduling.fake_backend import (
    CHAT,
    OTHER_CHAT,
    FakeEngine,
    FakeRunner,
    entry,
    generate,
)


class ReplacingEngine(FakeEngine):
    """An engine whose model CHAT is a folder with a file. `replace_model` installs another folder in its
    place, and `write_model` writes the file again.

    `made_from` has the `weights_id` of each model that was loaded, and `listings` counts the calls of the
    catalog.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.made_from, self.listings = folder / "first", list[str](), 0
        self.entries = [entry(OTHER_CHAT)]
        super().__init__(max_loaded_models=2)
        self.write_model("old")

    def replace_model(self, weights_id: str) -> None:
        shutil.rmtree(self.folder)
        self.folder = self.folder.with_name(weights_id)
        self.write_model(weights_id)

    def write_model(self, weights_id: str) -> None:
        self.folder.mkdir(exist_ok=True)
        (self.folder / "model.safetensors").write_text(weights_id)
        self.entries[1:2] = [replace(entry(CHAT), path=self.folder, weights_id=weights_id)]
        self.now += changes.LOOK_AGAIN_S

    def _catalog(self) -> tuple[list[ModelEntry], list[BrokenModel]]:
        self.listings += 1
        return self.entries, []

    def _make_runner(self, entry: ModelEntry, weights: Any, requests: EngineRequests) -> FakeRunner:
        self.made_from.append(entry.weights_id)
        return super()._make_runner(entry, weights, requests)


@pytest.fixture
def engine(tmp_path):
    engine = ReplacingEngine(tmp_path)
    engine.send(Load("load", CHAT, keep_alive_s=-1.0))
    engine.turn(5)
    assert engine.answer("load") and engine.made_from == ["old"]
    engine.events.clear()
    return engine


def turn_and_wait(engine: FakeEngine, times: int) -> None:
    for _ in range(times):
        engine.now += RETRY_S
        engine.turn()


def test_request_for_a_replaced_model_is_answered_with_the_new_files(engine):
    """A preloaded model that was made again was once answered with its old weights for ever."""
    engine.send(generate("before"))
    engine.turn(2)
    engine.replace_model("new")
    engine.send(generate("after"))
    turn_and_wait(engine, 5)
    assert engine.answer("before").reason == engine.answer("after").reason == "length"
    assert engine.made_from == ["old", "new"]
    changes = [type(event) for event in engine.events if isinstance(event, (Loaded, Unloaded))]
    assert changes == [Unloaded, Loaded]


def test_request_running_at_a_replacement_keeps_the_old_files_and_a_later_one_waits_for_the_new_files(engine):
    engine.send(generate("running", steps=5))
    engine.turn()
    engine.replace_model("new")
    engine.send(generate("later"))
    turn_and_wait(engine, 2)
    assert engine.status("running") is RequestStatus.RUNNING
    assert engine.status("later") is RequestStatus.WAITING_FOR_MODEL
    turn_and_wait(engine, 8)
    assert engine.answer("running").usage.completion_tokens == 5
    assert engine.answer("later").reason == "length"
    assert engine.made_from == ["old", "new"]


def test_request_for_a_model_with_replaced_files_fails_if_requests_on_the_old_files_run_too_long(engine):
    engine.send(generate("running", steps=999))
    engine.turn()
    engine.replace_model("new")
    engine.send(generate("later"))
    engine.turn()
    engine.now += 121.0
    engine.turn()
    assert engine.answer("later").code == "overloaded"
    assert "was replaced, and requests still run with its earlier files" in engine.answer("later").message


def test_replaced_model_is_unloaded_although_its_new_files_cannot_be_loaded(engine):
    engine.replace_model("new")
    engine.loaders_broken = True
    engine.send(generate("a"))
    turn_and_wait(engine, 5)
    assert engine.answer("a").code == "model_load_failed"
    assert [event.model for event in engine.events if isinstance(event, Unloaded)] == [CHAT]


def test_requests_for_an_unchanged_model_do_not_list_the_models_again(engine):
    engine.send(generate("first"))
    engine.turn(2)
    before = engine.listings
    engine.send(*(generate(str(number)) for number in range(5)))
    engine.turn(5)
    assert engine.listings == before and engine.made_from == ["old"]


def test_loaded_model_that_was_removed_from_the_disk_still_answers(engine):
    del engine.entries[1:]
    shutil.rmtree(engine.folder)
    engine.send(generate("a"))
    engine.turn(3)
    assert engine.answer("a").reason == "length"


def unloads(engine: FakeEngine) -> list[str]:
    return [event.model for event in engine.events if isinstance(event, Unloaded)]


def test_model_whose_files_are_being_written_still_answers_and_is_loaded_again_afterwards(
    engine, monkeypatch
):
    """A copy over a loaded model's folder once unloaded it as soon as its first file was there."""
    engine.write_model("half")
    engine.send(generate("during"))
    turn_and_wait(engine, 3)
    assert engine.answer("during").reason == "length"
    assert engine.made_from == ["old"] and not unloads(engine)
    engine.write_model("new")
    monkeypatch.setattr(changes, "SETTLED_S", 0.0)
    engine.send(generate("after"))
    turn_and_wait(engine, 5)
    assert engine.answer("after").reason == "length" and engine.made_from == ["old", "new"]


def test_request_that_waits_for_a_replaced_model_runs_with_the_old_files_if_the_new_files_disappear(engine):
    engine.send(generate("running", steps=5))
    engine.turn()
    engine.replace_model("new")
    engine.send(generate("later"))
    turn_and_wait(engine, 1)
    assert engine.status("later") is RequestStatus.WAITING_FOR_MODEL
    del engine.entries[1:]
    engine.now += changes.LOOK_AGAIN_S
    turn_and_wait(engine, 8)
    assert engine.answer("running").reason == engine.answer("later").reason == "length"
    assert engine.made_from == ["old"] and not unloads(engine)


def test_model_that_replaces_a_loaded_one_takes_over_the_keep_alive_of_the_replaced_model(engine):
    """A model that was to stay for ever was gone a minute after it had been made again."""
    engine.replace_model("new")
    engine.send(generate("a"))
    turn_and_wait(engine, 5)
    assert unloads(engine) == [CHAT]
    engine.now += 3600.0
    engine.turn()
    assert unloads(engine) == [CHAT]


def test_loaded_model_whose_files_were_replaced_stays_loaded_when_a_request_for_it_is_only_checked(engine):
    engine.replace_model("new")
    engine.scheduler.early_checks.answer(generate("a", check_only=True))
    turn_and_wait(engine, 3)
    assert not unloads(engine)


def test_request_for_a_made_model_does_not_start_with_the_new_weights_of_its_parent(engine):
    """The gateway named the parent, since both shared their weights; the engine has the parent's new ones."""
    engine.entries.append(replace(entry("made:latest"), weights_id="old"))
    engine.replace_model("new")
    engine.send(generate("parent"))
    turn_and_wait(engine, 5)
    engine.send(generate("made", requested_model="made"))
    turn_and_wait(engine, 8)
    assert engine.answer("parent").reason == engine.answer("made").reason == "length"
    assert engine.made_from == ["old", "new", "old"]


def test_request_for_a_model_whose_parent_was_replaced_is_answered_with_its_own_weights(engine):
    """A model that was made from another one has hard links to its weights, and keeps them."""
    engine.entries.append(replace(entry("made:latest"), weights_id="old", weights_name=CHAT))
    engine.send(generate("running", steps=5))
    engine.turn()
    engine.replace_model("new")
    engine.entries[2] = replace(engine.entries[2], weights_name="")
    engine.send(generate("made", requested_model="made"))
    turn_and_wait(engine, 8)
    assert engine.answer("made").reason == "length"
    assert engine.made_from == ["old", "old"]
    assert [event.model for event in engine.events if isinstance(event, Loaded)] == ["made:latest"]
