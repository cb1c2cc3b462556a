"""PID files, the state store, logs: small files that another process may have left in any shape."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from vestal.supervision import JsonStateStore, ProcessIdentity, read_pid_file, start_time, write_pid_file
from vestal.supervision.processes.identity import BsdInfo, age_s, identify, parse_ps, remove_pid_file
from vestal.supervision.processes.log_file import last_lines, turn_over


def test_identity_of_this_process_is_alive_and_survives_its_file(tmp_path: Path):
    me = identify(os.getpid())
    assert me is not None
    write_pid_file(tmp_path / "run" / "me.json", me)
    again = read_pid_file(tmp_path / "run" / "me.json")
    assert again == me
    assert again.alive()
    assert 0 <= age_s(again) < 3600
    assert json.loads((tmp_path / "run" / "me.json").read_text())["pid"] == os.getpid()


def test_identity_with_another_start_time_or_boot_is_not_alive():
    started = start_time(os.getpid())
    assert started is not None
    assert not ProcessIdentity(os.getpid(), started - 1).alive()
    assert not ProcessIdentity(os.getpid(), started, "another-boot").alive()


def test_start_time_of_no_process_is_none():
    assert start_time(2**22 + 1) is None


@pytest.mark.parametrize("text", ["", "12", "[]", "{}", '{"pid": "x", "start_time": 1}', '{"pid": 1', "\x00"])
def test_pid_file_that_is_not_one_of_ours_is_none(tmp_path: Path, text: str):
    path = tmp_path / "x.json"
    path.write_text(text)
    assert read_pid_file(path) is None


def test_pid_file_of_another_process_is_not_removed(tmp_path: Path):
    path = tmp_path / "x.json"
    write_pid_file(path, ProcessIdentity(10, 1.0))
    remove_pid_file(path, 11)
    assert path.exists()
    remove_pid_file(path, 10)
    assert not path.exists()


def test_ps_line_is_read_and_a_zombie_is_none():
    told = parse_ps("S+   Sun Nov 16 10:31:05 2025\n")
    assert told is not None
    assert time.strftime("%H:%M:%S", time.localtime(told)) == "10:31:05"
    assert parse_ps("Z    Sun Nov 16 10:31:05 2025\n") is None
    assert parse_ps("") is None


def test_bsd_info_has_the_size_of_the_kernels_struct():
    import ctypes

    assert ctypes.sizeof(BsdInfo) == 136
    assert BsdInfo.start_tvsec.offset == 120


def test_store_keeps_records_across_instances(tmp_path: Path):
    JsonStateStore(tmp_path / "run" / "state.json").save("a", {"stopped_by_hand": True})
    assert JsonStateStore(tmp_path / "run" / "state.json").load("a") == {"stopped_by_hand": True}
    assert JsonStateStore(tmp_path / "run" / "state.json").load("b") is None


@pytest.mark.parametrize("text", ["", "{", "[1]", '"x"'])
def test_store_that_is_corrupt_is_put_aside_and_counts_as_none(tmp_path: Path, text: str):
    path = tmp_path / "state.json"
    path.write_text(text)
    store = JsonStateStore(path)
    assert store.load("a") is None
    assert (tmp_path / "state.json.corrupt").read_text() == text
    store.save("a", {"x": 1})
    assert JsonStateStore(path).load("a") == {"x": 1}


def test_log_past_its_size_is_turned_over_at_a_start(tmp_path: Path):
    path = tmp_path / "logs" / "a.log"
    assert turn_over(path, 10) == 0
    path.write_text("0123456789")
    assert turn_over(path, 10) == 10
    path.write_text("0123456789a")
    assert turn_over(path, 10) == 0
    assert (tmp_path / "logs" / "a.log.1").read_text() == "0123456789a"


def test_last_lines_are_those_of_this_run_only(tmp_path: Path):
    path = tmp_path / "a.log"
    path.write_text("old\n")
    since = path.stat().st_size
    assert last_lines(path, since) == []
    path.write_bytes(b"old\nnew \xff\n\n  \nlast\n")
    assert last_lines(path, since, 2) == ["new \ufffd", "last"]
    assert last_lines(tmp_path / "none.log") == []
    path.write_text("x" * 100_000 + "\nend\n")
    assert last_lines(path, 0, 1) == ["end"]
