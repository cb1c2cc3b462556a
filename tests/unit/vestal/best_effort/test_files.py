"""Small files that are replaced as a whole, and whose failed writes are counted instead of raised."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path

import pytest

from vestal.best_effort.failures import FAILURES
from vestal.best_effort.files import FileWatch, KeptFile, replace_file, write_file

DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EIO)


@pytest.fixture(params=DISK_ERRORS, ids=lambda number: errno.errorcode[number])
def broken_disk(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> OSError:
    """A disk on which no file can be created, with one of the errors that disks give."""
    error = OSError(request.param, os.strerror(request.param))

    def refuse(*arguments: object) -> int:
        raise error

    monkeypatch.setattr("vestal.best_effort.files.os.open", refuse)
    return error


def test_replacing_a_file_that_cannot_be_written_counts_and_returns_the_error(
    tmp_path: Path, broken_disk: OSError
):
    before = FAILURES.count("test")
    assert replace_file(tmp_path / "x", "text", "test") is broken_disk
    assert FAILURES.count("test") == before + 1
    assert FAILURES.as_json()["test"]["error"] == broken_disk.strerror
    assert list(tmp_path.iterdir()) == []


def test_error_of_a_full_disk_in_a_write_names_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """`vestal token` said that there was no space left for the disk."""
    monkeypatch.setattr("vestal.best_effort.files.os.fsync", _no_space)
    with pytest.raises(OSError) as caught:
        write_file(tmp_path / "token", "text", durable=True)
    assert caught.value.filename == str(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_self_restoring_file_whose_write_failed_is_written_once_the_disk_can_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    file, path = KeptFile(tmp_path / "run" / "x", "kept"), tmp_path / "run" / "x"
    with monkeypatch.context() as broken:
        broken.setattr("vestal.best_effort.files.os.replace", _no_space)
        assert file.write("text") is not None
        assert not file.keep()
        assert not file.keep()
    assert FAILURES.count("kept") == 1, "the repetitions are not counted"
    assert file.keep()
    assert path.read_text() == "text"
    assert FAILURES.as_json()["kept"]["failing_since"] is None
    assert [entry.name for entry in path.parent.iterdir()] == ["x"], "no temporary file is left"


def test_self_restoring_file_in_a_deleted_folder_is_written_again(tmp_path: Path):
    file = KeptFile(tmp_path / "run" / "x", "kept")
    file.write("text")
    file.path.unlink()
    file.path.parent.rmdir()
    assert file.keep()
    assert not file.keep()
    assert file.path.read_text() == "text"


def test_self_restoring_file_that_the_program_itself_removed_is_not_written_again(tmp_path: Path):
    file = KeptFile(tmp_path / "x", "kept")
    file.write("text")
    file.remove()
    assert not file.keep()
    file.write("text")
    file.forget()
    file.path.unlink()
    assert not file.keep()


def test_written_file_and_new_folders_are_readable_by_their_owner_only(tmp_path: Path):
    path = tmp_path / "home" / "run" / "x"
    write_file(path, "text", durable=True)
    assert path.stat().st_mode & 0o777 == 0o600
    assert [folder.stat().st_mode & 0o777 for folder in (path.parent, path.parent.parent)] == [0o700, 0o700]


def _no_space(*arguments: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_failed_write_is_no_longer_reported_if_the_file_already_has_the_text_at_the_next_check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The next agent writes the last agent's settings again. On a full disk, that once failed forever."""
    KeptFile(tmp_path / "x", "same").write("text")
    file = KeptFile(tmp_path / "x", "same")
    with monkeypatch.context() as broken:
        broken.setattr("vestal.best_effort.files.os.replace", _no_space)
        file.write("text")
    assert not file.keep()
    assert FAILURES.as_json()["same"]["failing_since"] is None


def test_self_restoring_file_is_read_again_only_after_the_file_has_changed_on_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Each second, an agent at rest looks at its files: it asks for their status and does not read them."""
    file = KeptFile(tmp_path / "x", "kept")
    read: list[Path] = []
    file.write("text")
    later = time.time() + 10
    monkeypatch.setattr("vestal.best_effort.files.time.time", lambda: later)
    assert not file.keep()
    with monkeypatch.context() as counted:
        counted.setattr("pathlib.Path.read_text", read.append)
        assert not file.keep()
    assert read == []
    file.path.write_text("next")
    assert file.keep()
    assert file.path.read_text() == "text"


def test_file_watch_never_reports_a_recently_changed_file_as_unchanged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A file system keeps times in steps, within which a second change would not be noticed."""
    path = tmp_path / "x"
    path.write_text("text")
    watch = FileWatch(path)
    for _ in range(2):
        assert not watch.is_unchanged()
        watch.confirm()
    now = time.time()
    monkeypatch.setattr("vestal.best_effort.files.time.time", lambda: now + 10)
    assert not watch.is_unchanged()
    watch.confirm()
    assert watch.is_unchanged()
    watch.forget()
    assert not watch.is_unchanged()
    path.unlink()
    watch.confirm()
    assert not watch.is_unchanged()
