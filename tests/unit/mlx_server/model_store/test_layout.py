"""The store on disk: models appear as a whole, one process writes, abandoned staging folders are deleted."""

import errno
import os
import tempfile
import threading

import pytest

from mlx_server.model_store import layout
from mlx_server.model_store.blobs import Blobs
from mlx_server.model_store.errors import ModelStoreError
from tests.file_systems import lock_as_on_nfs, lock_nothing


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


def test_creating_a_staging_folder_deletes_the_staging_folders_of_dead_processes(tmp_path):
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


def test_reading_a_damaged_manifest_file_returns_an_empty_manifest(tmp_path):
    (tmp_path / layout.MANIFEST).write_text("{")
    assert layout.read_manifest(tmp_path) == {}


@pytest.fixture
def full_disk(monkeypatch):
    """Refuse each new folder, as a full disk does."""

    def refuse(*_args, **_options):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(tempfile, "mkdtemp", refuse)
    monkeypatch.setattr(os, "mkdir", refuse)


def test_remove_on_a_full_disk_deletes_the_model(tmp_path, request):
    """Removing a model is the remedy that the message of a full disk names."""
    stage(tmp_path, "{}").rename(tmp_path / "m")
    request.getfixturevalue("full_disk")
    assert layout.remove(tmp_path, "m") is True
    assert list(tmp_path.iterdir()) == []


def test_remove_of_a_linked_model_deletes_the_link_alone(tmp_path):
    stage(tmp_path, "{}").rename(tmp_path / "elsewhere")
    (tmp_path / "m").symlink_to(tmp_path / "elsewhere")
    assert layout.remove(tmp_path, "m") is True
    assert [path.name for path in tmp_path.iterdir()] == ["elsewhere"]


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS])
def test_remove_from_an_unwritable_store_raises_store_unwritable(tmp_path, monkeypatch, number):
    def refuse(*_args):
        raise OSError(number, os.strerror(number))

    stage(tmp_path, "{}").rename(tmp_path / "m")
    monkeypatch.setattr(os, "rename", refuse)
    with pytest.raises(ModelStoreError, match=r"mlx\.store") as caught:
        layout.remove(tmp_path, "m")
    assert caught.value.code == "store_unwritable"


@pytest.mark.parametrize(("number", "code"), [(errno.EROFS, "store_unwritable"), (errno.ENOSPC, "disk_full")])
@pytest.mark.parametrize("folder", [layout.changing, layout.locked_staging_folder])
def test_new_folder_of_the_store_that_cannot_be_made_raises_the_reason(
    tmp_path, monkeypatch, number, code, folder
):
    def refuse(*_args, **_options):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(tempfile, "mkdtemp", refuse)
    with pytest.raises(ModelStoreError) as caught, folder(tmp_path):
        pass
    assert caught.value.code == code


@pytest.mark.parametrize("lock", [lock_as_on_nfs, lock_nothing])
def test_model_is_fetched_made_and_removed_on_a_file_system_that_cannot_lock_folders(
    tmp_path, monkeypatch, lock
):
    """On NFS, each of the three failed with EBADF, and the finished download was deleted."""
    lock(monkeypatch)
    with layout.locked_staging_folder(tmp_path) as staging:
        layout.move_into_store(stage(staging, "{}"), tmp_path, "fetched", {})
    with layout.changing(tmp_path) as staging:
        layout.replace(stage(staging, "{}"), tmp_path, "made")
    assert layout.remove(tmp_path, "fetched")
    assert [path.name for path in tmp_path.iterdir() if not path.name.endswith("lock")] == ["made"]


@pytest.mark.parametrize("prefix", [".staging-", ".changing-"])
def test_temporary_folder_on_a_file_system_without_locks_is_deleted_only_after_a_day(
    tmp_path, monkeypatch, prefix
):
    """Without locks, it is unknown whether the process that made the folder is alive."""
    lock_nothing(monkeypatch)
    for name in ("young", "old"):
        (tmp_path / f"{prefix}{name}").mkdir()
    os.utime(tmp_path / f"{prefix}old", (0, 0))
    layout.clean_up(tmp_path)
    assert [path.name for path in tmp_path.glob(f"{prefix}*")] == [f"{prefix}young"]


def fetch(store):
    with layout.locked_staging_folder(store):
        pass


def change(store):
    with layout.changing(store):
        pass


def test_folder_of_the_user_whose_link_was_being_removed_keeps_all_its_files(tmp_path):
    (tmp_path / "own" / "replaced").mkdir(parents=True)
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / ".changing-dead").symlink_to(tmp_path / "own")
    layout.clean_up(tmp_path / "store")
    assert list((tmp_path / "store").iterdir()) == []
    assert (tmp_path / "own" / "replaced").is_dir()


def test_clean_up_deletes_what_killed_processes_left_and_keeps_a_running_fetch(tmp_path):
    """Abandoned uploads and conversions of 40 GB stayed until somebody uploaded another file."""
    layout.clean_up(tmp_path / "missing")
    for name in (".changing-dead", ".staging-dead", ".blobs"):
        (tmp_path / name).mkdir()
    (tmp_path / ".blobs" / ".working-dead").mkdir()
    (tmp_path / ".blobs" / ".uploading-dead").touch()
    for path in (tmp_path / ".blobs").iterdir():
        os.utime(path, (0, 0))
    layout.clean_up(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".blobs", ".lock"]
    assert list((tmp_path / ".blobs").iterdir()) == []
    with layout.locked_staging_folder(tmp_path) as staging:
        layout.clean_up(tmp_path)
        assert staging.exists()


@pytest.mark.parametrize("use", [fetch, change])
def test_fetch_and_change_delete_uploads_that_are_older_than_a_day(tmp_path, use):
    upload = Blobs(tmp_path).upload("sha256:" + "0" * 64)
    (left,) = (tmp_path / ".blobs").iterdir()
    os.utime(left, (0, 0))
    use(tmp_path)
    assert list((tmp_path / ".blobs").iterdir()) == []
    upload.close()
