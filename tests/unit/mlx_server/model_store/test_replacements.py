"""A model in the store of which the replacement by another is interrupted: no file of it is lost."""

import errno
import os

import pytest

from mlx_server.model_store import layout
from tests.unit.mlx_server.model_store.test_layout import change, fetch, stage


def test_replace_that_fails_midway_keeps_the_installed_model(tmp_path, monkeypatch):
    """The old model had been moved to the folder that is deleted next when the new one could not be moved."""
    stage(tmp_path, "old").rename(tmp_path / "m")
    real = os.rename

    def fail_once_for_the_new_model(source, target, **options):
        if os.path.basename(source) == "model":
            raise OSError(errno.EIO, "Input/output error")
        return real(source, target, **options)

    monkeypatch.setattr(os, "rename", fail_once_for_the_new_model)
    with pytest.raises(OSError, match="Input/output"), layout.changing(tmp_path) as staging:
        layout.replace(stage(staging, "new"), tmp_path, "m")
    assert (tmp_path / "m" / "config.json").read_text() == "old"


def test_replace_that_is_interrupted_between_its_renames_keeps_the_installed_model(tmp_path, monkeypatch):
    """Ctrl-C during the first rename, which can take long on a network disk, left the only copy to be
    deleted.
    """
    stage(tmp_path, "old").rename(tmp_path / "m")
    real = os.rename

    def interrupt_after_the_first(source, target, **options):
        real(source, target, **options)
        monkeypatch.setattr(os, "rename", real)
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "rename", interrupt_after_the_first)
    with pytest.raises(KeyboardInterrupt), layout.changing(tmp_path) as staging:
        layout.replace(stage(staging, "new"), tmp_path, "m")
    assert (tmp_path / "m" / "config.json").read_text() == "old"


def interrupt_replacement(store, prefix):
    """Leave what a process leaves that is killed while it replaces the model `m`."""
    (store / f"{prefix}dead").mkdir()
    (store / "m").mkdir()
    layout.write_manifest(store / "m", "m", {})
    (store / "m").rename(store / f"{prefix}dead" / "replaced")


@pytest.mark.parametrize("prefix", [".staging-", ".changing-"])
@pytest.mark.parametrize("use", [layout.clean_up, fetch, change, lambda store: layout.remove(store, "other")])
def test_model_whose_replacement_was_killed_midway_is_moved_back(tmp_path, prefix, use):
    """The model was in a temporary folder, which the next fetch or change deleted."""
    interrupt_replacement(tmp_path, prefix)
    (tmp_path / "other").mkdir()
    use(tmp_path)
    assert layout.read_manifest(tmp_path / "m")["name"] == "m"
    assert layout.remove(tmp_path, "m")
    fetch(tmp_path)
    assert not (tmp_path / "m").exists()
    assert not list(tmp_path.glob(".*-dead"))


@pytest.mark.parametrize("prefix", [".staging-", ".changing-"])
def test_model_removed_after_its_completed_replacement_was_killed_before_the_clean_up_does_not_come_back(
    tmp_path, prefix
):
    interrupt_replacement(tmp_path, prefix)
    stage(tmp_path, "new").rename(tmp_path / "m")
    assert layout.remove(tmp_path, "m")
    fetch(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_replaced_model_that_cannot_be_moved_back_is_kept(tmp_path, monkeypatch):
    interrupt_replacement(tmp_path, ".changing-")
    real = os.rename
    monkeypatch.setattr(os, "rename", lambda *_, **__: os.stat(tmp_path / "no such file"))
    layout.clean_up(tmp_path)
    assert not (tmp_path / "m").exists()
    monkeypatch.setattr(os, "rename", real)
    layout.clean_up(tmp_path)
    assert layout.read_manifest(tmp_path / "m")["name"] == "m"


@pytest.mark.parametrize("manifest", [None, "{", "[]", '{"name": 7}', '{"name": "other"}'])
@pytest.mark.parametrize("prefix", [".staging-", ".changing-"])
def test_replaced_folder_whose_manifest_does_not_name_its_model_is_moved_back(tmp_path, prefix, manifest):
    """A folder that the user had put or copied into the store was deleted, though it was the only copy."""
    (tmp_path / "other").mkdir()
    dead = tmp_path / f"{prefix}dead"
    dead.mkdir()
    layout.write_manifest(stage(dead, "new"), "m", {})
    (dead / "replaced").mkdir()
    (dead / "replaced" / "config.json").write_text("own")
    if manifest is not None:
        (dead / "replaced" / layout.MANIFEST).write_text(manifest)
    layout.clean_up(tmp_path)
    assert (tmp_path / "m" / "config.json").read_text() == "own"
    fetch(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "m", "other"]


@pytest.mark.parametrize("staged_is_left", [True, False])
def test_replaced_folder_whose_model_is_unknown_is_deleted_only_if_the_new_model_is_in_its_place(
    tmp_path, staged_is_left
):
    """A power cut can leave the new model's manifest empty, too."""
    (tmp_path / ".changing-dead" / "replaced").mkdir(parents=True)
    if staged_is_left:
        (stage(tmp_path / ".changing-dead", "new") / layout.MANIFEST).touch()
    layout.clean_up(tmp_path)
    assert (tmp_path / ".changing-dead" / "replaced").exists() is staged_is_left
