"""The store on disk: models appear as a whole, one process writes, abandoned staging folders are deleted."""

import threading

import pytest

from mlx_server.model_store import layout
from mlx_server.model_store.errors import ModelStoreError


@pytest.mark.parametrize(
    ("name", "folder"),
    [("smollm2:135m", "smollm2__135m"), ("org/model:latest", "org--model__latest"), ("a.b-c:d", "a.b-c__d")],
)
def test_folder_name_of_a_model_replaces_slash_and_colon(name, folder):
    assert layout.folder_name(name) == folder


def test_model_name_read_from_a_folder_name_has_its_colon_again():
    assert layout.model_name("qwen3__4b") == "qwen3:4b"
    assert layout.model_name("My-Model") == "My-Model"


def stage(staging, content):
    folder = staging / "model"
    folder.mkdir()
    (folder / "config.json").write_text(content)
    return folder


def test_move_into_store_writes_manifest_and_leaves_no_staging_folder(tmp_path):
    with layout.locked_staging_folder(tmp_path) as staging:
        layout.move_into_store(stage(staging, "{}"), tmp_path, "m:latest", {"source": "path:x"})
    assert layout.read_manifest(tmp_path / "m__latest") == {"name": "m:latest", "source": "path:x"}
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "m__latest"]


def test_move_into_store_replaces_an_installed_model_as_a_whole(tmp_path):
    for content in ("old", "new"):
        with layout.locked_staging_folder(tmp_path) as staging:
            layout.move_into_store(stage(staging, content), tmp_path, "m", {})
    assert (tmp_path / "m" / "config.json").read_text() == "new"
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "m"]


def test_locked_staging_folder_is_deleted_if_an_error_is_raised_while_it_is_used(tmp_path):

    def fetch():
        with layout.locked_staging_folder(tmp_path) as staging:
            stage(staging, "{}")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fetch()
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_locked_staging_folder_deletes_staging_folders_of_dead_processes(tmp_path):
    (tmp_path / ".staging-dead" / "deep").mkdir(parents=True)
    (tmp_path / "m").mkdir()
    with layout.locked_staging_folder(tmp_path):
        assert not (tmp_path / ".staging-dead").exists()
        assert (tmp_path / "m").exists()


def test_locked_staging_folder_held_by_another_process_is_reported_and_waited_for(tmp_path):
    waiting = threading.Event()
    order = []

    def second():
        with layout.locked_staging_folder(tmp_path, waiting.set):
            order.append("second")

    thread = threading.Thread(target=second)
    with layout.locked_staging_folder(tmp_path) as staging:
        thread.start()
        assert waiting.wait(10)
        assert staging.exists()
        order.append("first")
    thread.join(10)
    assert order == ["first", "second"]


def test_locked_staging_folder_in_an_unwritable_store_raises_store_unwritable(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with (
        pytest.raises(ModelStoreError, match=r"mlx\.store") as caught,
        layout.locked_staging_folder(tmp_path / "file"),
    ):
        pass
    assert caught.value.code == "store_unwritable"
    assert str(tmp_path / "file") in caught.value.message


def test_read_manifest_of_a_damaged_file_is_empty(tmp_path):
    (tmp_path / layout.MANIFEST).write_text("{")
    assert layout.read_manifest(tmp_path) == {}
