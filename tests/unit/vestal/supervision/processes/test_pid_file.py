"""PID files, which another process may have left in any form, and the identities in them."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from vestal.supervision import ProcessIdentity, read_pid_file, start_time, write_pid_file
from vestal.supervision.processes.identity import age_s, identify
from vestal.supervision.processes.pid_file import KeptPidFile


def test_running_process_is_recognized_as_alive_by_the_identity_read_back_from_its_pid_file(tmp_path: Path):
    me = identify(os.getpid())
    assert me is not None
    write_pid_file(tmp_path / "run" / "me.json", me)
    restored = read_pid_file(tmp_path / "run" / "me.json")
    assert restored == me
    assert restored.alive()
    assert 0 <= age_s(restored) < 3600
    assert json.loads((tmp_path / "run" / "me.json").read_text())["pid"] == os.getpid()


def test_process_identity_with_another_start_time_or_boot_is_not_alive():
    started = start_time(os.getpid())
    assert started is not None
    assert not ProcessIdentity(os.getpid(), started - 1).alive()
    assert not ProcessIdentity(os.getpid(), started, "another-boot").alive()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "12",
        "[]",
        "{}",
        '{"pid": "x", "start_time": 1}',
        '{"pid": 1',
        "\x00",
        '{"pid": 1e999, "start_time": 1}',
    ],
)
def test_malformed_pid_file_is_read_as_none(tmp_path: Path, text: str):
    path = tmp_path / "x.json"
    path.write_text(text)
    assert read_pid_file(path) is None


def test_pid_file_of_another_process_is_not_removed(tmp_path: Path):
    path = tmp_path / "x.json"
    write_pid_file(path, ProcessIdentity(10, 1.0))
    KeptPidFile(path).remove_if_of(11)
    assert path.exists()
    KeptPidFile(path).remove_if_of(10)
    assert not path.exists()


@pytest.mark.parametrize("spoil", [Path.unlink, lambda path: path.write_text("{}")])
def test_pid_file_of_a_running_process_is_written_again_if_deleted_or_changed(tmp_path: Path, spoil):
    file = KeptPidFile(tmp_path / "run" / "x.json")
    assert file.write_identity(ProcessIdentity(10, 1.0)) is None
    assert not file.keep()
    spoil(file.path)
    assert file.keep()
    found = read_pid_file(file.path)
    assert found is not None
    assert found.pid == 10
    file.remove_if_of(10)
    assert not file.keep()
    assert not file.path.exists()


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """Return a PID file of this process in a folder that may be copied or moved."""
    me = identify(os.getpid())
    assert me is not None
    path = tmp_path / "home" / "run" / "agent.json"
    write_pid_file(path, me)
    return path


def test_pid_file_in_a_copied_folder_names_no_process(written: Path, tmp_path: Path):
    """`vestal down` in a copy of a home ended the processes of the home that the copy was made from."""
    shutil.copytree(tmp_path / "home", tmp_path / "copy")
    assert read_pid_file(tmp_path / "copy" / "run" / "agent.json") is None
    assert read_pid_file(written) is not None


def test_pid_file_in_a_moved_folder_names_its_process_even_if_the_former_folder_was_made_again(
    written: Path, tmp_path: Path
):
    (tmp_path / "home").rename(tmp_path / "moved")
    (tmp_path / "home" / "run").mkdir(parents=True)  # a running agent makes it again, for its files
    assert read_pid_file(tmp_path / "moved" / "run" / "agent.json") is not None


def test_pid_file_in_a_folder_moved_to_another_disk_names_its_process(written: Path, tmp_path: Path):
    shutil.copytree(tmp_path / "home", tmp_path / "moved")
    shutil.rmtree(tmp_path / "home")
    assert read_pid_file(tmp_path / "moved" / "run" / "agent.json") is not None


def test_pid_file_restored_from_a_backup_names_its_process(written: Path, tmp_path: Path):
    shutil.copytree(tmp_path / "home", tmp_path / "backup")
    (tmp_path / "home").rename(tmp_path / "damaged")  # so that its inode is not used again
    shutil.copytree(tmp_path / "backup", tmp_path / "home")
    assert read_pid_file(written) is not None


def test_pid_file_of_an_earlier_version_that_names_no_folder_is_still_read(written: Path):
    fields = json.loads(written.read_text())
    del fields["folder"]
    written.write_text(json.dumps(fields))
    assert read_pid_file(written) == identify(os.getpid())


def test_pid_file_in_a_folder_that_was_made_again_is_written_again_with_the_new_folder(tmp_path: Path):
    file = KeptPidFile(tmp_path / "run" / "x.json")
    file.write_identity(ProcessIdentity(10, 1.0))
    file.path.parent.rename(tmp_path / "deleted")
    assert file.keep()
    shutil.copytree(tmp_path / "run", tmp_path / "copy")
    assert read_pid_file(file.path) == ProcessIdentity(10, 1.0)
    assert read_pid_file(tmp_path / "copy" / "x.json") is None
    assert not file.keep()
