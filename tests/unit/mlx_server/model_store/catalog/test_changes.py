"""A loaded model is outdated once its name stands for other files on the disk, and those are complete."""

from __future__ import annotations

import json
import os
import shutil
import time

import pytest

from mlx_server.model_store import ModelEntry, catalog, layout, survey
from mlx_server.model_store.catalog.changes import LOOK_AGAIN_S, SETTLED_S, ModelChanges
from tests.models.adapter_folders import write_adapter, write_base
from tests.unit.mlx_server.model_store.catalog.test_catalog import config_of, write_model
from vestal.config import Config, load

__all__ = ["config_of"]


def install(config: Config, name: str, folder) -> None:
    """Install the model in `folder` as `ollama create` does at its end."""
    with layout.changing(config.models_dir) as place:
        shutil.move(folder, place / "model")
        layout.write_manifest(place / "model", name, {"installed_at": 1})
        layout.replace(place / "model", config.models_dir, name)


def entry_of(config: Config, name: str) -> ModelEntry:
    return next(entry for entry in catalog(config) if entry.name == name)


class Changes(ModelChanges):
    """The changes of the models of `config`, at a time that `wait` moves. `listings` counts the calls of the
    catalog, which fails while `is_unreadable`.
    """

    def __init__(self, config: Config) -> None:
        self._config, self._waited_s, self.listings, self.is_unreadable = config, 0.0, 0, False
        super().__init__(
            self._survey,
            (config.models_dir, config.mlx.models_folder),
            lambda: self._waited_s,
            lambda: time.time() + self._waited_s,
        )

    def _survey(self):
        self.listings += 1
        if self.is_unreadable:
            raise OSError("too many open files")
        return survey(self._config)

    def wait(self, seconds: float) -> None:
        self._waited_s += seconds


def test_model_that_was_made_again_with_weights_of_the_same_shape_has_changed(config_of, tmp_path):
    config = config_of()
    install(config, "mine:latest", write_model(tmp_path / "first"))
    loaded, changes = entry_of(config, "mine:latest"), Changes(config)
    assert not changes.has_changed(loaded)
    changes.wait(LOOK_AGAIN_S)
    install(config, "mine:latest", write_model(tmp_path / "second"))
    assert loaded.digest == entry_of(config, "mine:latest").digest
    assert changes.has_changed(loaded)


def test_model_folder_that_was_replaced_in_place_has_changed(config_of, tmp_path):
    config = config_of({"m": {"source": f"path:{write_model(tmp_path / 'm')}"}})
    loaded, changes = entry_of(config, "m:latest"), Changes(config)
    assert not changes.has_changed(loaded)
    changes.wait(SETTLED_S)
    shutil.rmtree(tmp_path / "m")
    write_model(tmp_path / "m")
    assert changes.has_changed(loaded)


def test_adapter_that_was_trained_again_in_its_folder_has_changed_and_its_base_has_not(tmp_path):
    write_base(tmp_path / "base")
    write_adapter(tmp_path / "pirate")
    settings = {
        "models": {"llama3": {"source": f"path:{tmp_path}/base", "adapters": {"pirate": "path:pirate"}}}
    }
    (tmp_path / "vestal.yaml").write_text(json.dumps(settings))
    config = load({"VESTAL_HOME": str(tmp_path / "home"), "HOME": str(tmp_path)}, tmp_path)
    base, adapted = entry_of(config, "llama3:latest"), entry_of(config, "llama3:pirate")
    changes = Changes(config)
    assert not changes.has_changed(base) and not changes.has_changed(adapted)
    changes.wait(SETTLED_S)
    shutil.rmtree(tmp_path / "pirate")
    write_adapter(tmp_path / "pirate", seed=9)
    assert changes.has_changed(adapted)
    assert not changes.has_changed(base)


def install_snapshot(config: Config, snapshot) -> None:
    """Install a model whose files are in the hub's cache, as a fetch does at its end."""
    with layout.locked_staging_folder(config.models_dir) as staging:
        (staging / "model").mkdir()
        layout.move_into_store(staging / "model", config.models_dir, "hub:latest", {"path": str(snapshot)})


def test_model_whose_name_stands_for_another_snapshot_of_the_hub_has_changed(config_of, tmp_path):
    config = config_of({"hub": {"source": "hf:org/model"}})
    install_snapshot(config, write_model(tmp_path / "cache" / "first"))
    loaded, changes = entry_of(config, "hub:latest"), Changes(config)
    assert not changes.has_changed(loaded)
    changes.wait(SETTLED_S)
    install_snapshot(config, write_model(tmp_path / "cache" / "second"))
    assert changes.has_changed(loaded)


def test_installing_another_model_changes_no_loaded_model(config_of, tmp_path):
    config = config_of()
    install(config, "mine:latest", write_model(tmp_path / "first"))
    loaded, changes = entry_of(config, "mine:latest"), Changes(config)
    assert not changes.has_changed(loaded)
    changes.wait(LOOK_AGAIN_S)
    install(config, "other:latest", write_model(tmp_path / "second"))
    assert not changes.has_changed(loaded)


@pytest.mark.parametrize("damage", ["removed", "broken"])
def test_loaded_model_whose_files_are_gone_or_damaged_has_not_changed(config_of, tmp_path, damage):
    """The engine can still answer with what it has loaded."""
    config = config_of()
    folder = write_model(tmp_path / "own" / "m")
    loaded, changes = entry_of(config, "m:latest"), Changes(config)
    assert not changes.has_changed(loaded)
    changes.wait(SETTLED_S)
    if damage == "removed":
        shutil.rmtree(folder)
    else:
        (folder / "model.safetensors").write_bytes(b"cut")
    assert not changes.has_changed(loaded)


def test_model_folder_that_is_being_written_has_changed_only_once_it_is_complete(config_of, tmp_path):
    """`rsync` and `hf download` rename whole files into place, one after the other."""
    config = config_of()
    folder = write_model(tmp_path / "own" / "m")
    loaded, changes = entry_of(config, "m:latest"), Changes(config)
    shutil.copy(folder / "model.safetensors", tmp_path / "new")
    os.replace(tmp_path / "new", folder / "model.safetensors")
    os.utime(folder / "model.safetensors", (1, 1))  # as `rsync --times` does
    changes.wait(SETTLED_S / 2)
    assert not changes.has_changed(loaded) and changes.listings == 0
    changes.wait(SETTLED_S / 2)
    assert changes.has_changed(loaded)


@pytest.mark.parametrize(
    "part", [".model-00002.safetensors.Ab12", ".cache/huggingface/download/x.incomplete"]
)
def test_model_folder_is_being_written_while_a_hidden_file_in_it_grows(config_of, tmp_path, part):
    """`rsync` and `hf download` write a large file under such a name for minutes, beside others of the new
    model.
    """
    config = config_of()
    folder = write_model(tmp_path / "own" / "m")
    loaded, changes = entry_of(config, "m:latest"), Changes(config)
    (folder / part).parent.mkdir(parents=True, exist_ok=True)
    (folder / part).write_text("a")
    (folder / "model.safetensors").touch()
    time.sleep(0.1)
    (folder / part).write_text("b")
    settled_s = (folder / part).stat().st_ctime + SETTLED_S
    changes._wall_clock = lambda: settled_s - 0.05
    assert not changes.has_changed(loaded)
    changes._wall_clock = lambda: settled_s
    changes.wait(LOOK_AGAIN_S)
    assert changes.has_changed(loaded)


def test_model_in_a_folder_with_a_log_that_grows_has_changed_once_its_own_files_are_complete(
    config_of, tmp_path
):
    """A model that was trained in this folder was once answered with its old weights until the training
    ended.
    """
    config = config_of()
    folder = write_model(tmp_path / "own" / "m")
    (folder / "runs").mkdir()
    loaded, changes = entry_of(config, "m:latest"), Changes(config)
    (folder / "model.safetensors").touch()
    complete_s = (folder / "model.safetensors").stat().st_ctime + SETTLED_S
    time.sleep(0.05)
    for log in ("train.log", "runs/events.out"):
        (folder / log).write_text("step 1")
    complete_s = max(complete_s, folder.stat().st_ctime + SETTLED_S)
    time.sleep(0.05)
    (folder / "train.log").write_text("step 2")
    changes._wall_clock = lambda: complete_s
    assert changes.has_changed(loaded)


def test_model_whose_files_were_written_in_the_future_has_changed(config_of, tmp_path):
    """The clock was set back, or a file server's is ahead."""
    config = config_of()
    folder = write_model(tmp_path / "own" / "m")
    loaded, changes = entry_of(config, "m:latest"), Changes(config)
    (folder / "model.safetensors").touch()
    changes._wall_clock = lambda: time.time() - 3600
    assert changes.has_changed(loaded)


def test_model_files_are_looked_at_again_only_after_a_second(config_of, tmp_path):
    """Each look is of several folders, which may be on a network's file system that hangs."""
    config = config_of()
    install(config, "mine:latest", write_model(tmp_path / "first"))
    loaded, changes = entry_of(config, "mine:latest"), Changes(config)
    assert not changes.has_changed(loaded)
    install(config, "mine:latest", write_model(tmp_path / "second"))
    assert not changes.has_changed(loaded)
    changes.wait(LOOK_AGAIN_S)
    listings = changes.listings
    assert changes.has_changed(loaded) and changes.has_changed(loaded)
    assert changes.listings == listings + 1


def test_change_of_a_model_is_found_once_the_models_can_be_listed_again(config_of, tmp_path):
    """The failure was once remembered as no change, for as long as the files stayed as they were."""
    config = config_of()
    install(config, "mine:latest", write_model(tmp_path / "first"))
    loaded, changes = entry_of(config, "mine:latest"), Changes(config)
    install(config, "mine:latest", write_model(tmp_path / "second"))
    changes.is_unreadable = True
    assert not changes.has_changed(loaded)
    changes.is_unreadable = False
    changes.wait(LOOK_AGAIN_S)
    assert changes.has_changed(loaded)


def test_new_weights_in_a_reused_inode_are_not_taken_for_the_weights_of_a_loaded_model(config_of, tmp_path):
    """On ext4, a new file often has the inode of one that was just deleted. Writing a file again keeps its
    inode on every file system.
    """
    config = config_of()
    weights = write_model(tmp_path / "own" / "m") / "model.safetensors"
    before = entry_of(config, "m:latest")
    inode = weights.stat().st_ino
    weights.write_bytes(weights.read_bytes()[:-1] + b"\1")
    os.utime(weights, ns=(1, weights.stat().st_mtime_ns + 1))
    assert weights.stat().st_ino == inode
    after = entry_of(config, "m:latest")
    assert before.digest == after.digest and before.weights_id != after.weights_id
