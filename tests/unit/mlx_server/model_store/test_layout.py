"""The store's folders: put in place all at once, one writer at a time, orphans swept."""

import threading

import pytest

from mlx_server.model_store import layout
from mlx_server.model_store.errors import ModelStoreError


@pytest.mark.parametrize(
    ("name", "folder"),
    [("smollm2:135m", "smollm2__135m"), ("org/model:latest", "org--model__latest"), ("a.b-c:d", "a.b-c__d")],
)
def test_folder_is_named_after_the_model(name, folder):
    assert layout.folder_name(name) == folder


def test_found_folder_names_a_model():
    assert layout.model_name("qwen3__4b") == "qwen3:4b"
    assert layout.model_name("My-Model") == "My-Model"


def stage(staging, content):
    folder = staging / "model"
    folder.mkdir()
    (folder / "config.json").write_text(content)
    return folder


def test_installed_model_has_its_manifest_and_nothing_of_the_fetch_is_left(tmp_path):
    with layout.locked_staging_folder(tmp_path) as staging:
        layout.move_into_store(stage(staging, "{}"), tmp_path, "m:latest", {"source": "path:x"})
    assert layout.read_manifest(tmp_path / "m__latest") == {"name": "m:latest", "source": "path:x"}
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "m__latest"]


def test_model_installed_anew_replaces_the_old_one_whole(tmp_path):
    for content in ("old", "new"):
        with layout.locked_staging_folder(tmp_path) as staging:
            layout.move_into_store(stage(staging, content), tmp_path, "m", {})
    assert (tmp_path / "m" / "config.json").read_text() == "new"
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "m"]


def test_fetch_that_fails_leaves_nothing(tmp_path):

    def fetch():
        with layout.locked_staging_folder(tmp_path) as staging:
            stage(staging, "{}")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fetch()
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_orphans_of_dead_fetches_are_swept(tmp_path):
    (tmp_path / ".staging-dead" / "deep").mkdir(parents=True)
    (tmp_path / "m").mkdir()
    with layout.locked_staging_folder(tmp_path):
        assert not (tmp_path / ".staging-dead").exists()
        assert (tmp_path / "m").exists()


def test_second_writer_waits_and_says_so(tmp_path):
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


def test_store_that_cannot_be_made_is_one_clear_error(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with (
        pytest.raises(ModelStoreError, match=r"mlx\.store") as caught,
        layout.locked_staging_folder(tmp_path / "file"),
    ):
        pass
    assert caught.value.code == "store_unwritable"
    assert str(tmp_path / "file") in caught.value.message


def test_damaged_manifest_reads_as_none(tmp_path):
    (tmp_path / layout.MANIFEST).write_text("{")
    assert layout.read_manifest(tmp_path) == {}
