"""PID files, which another process may have left in any form, and the identities in them."""

from __future__ import annotations

import json
import os
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
