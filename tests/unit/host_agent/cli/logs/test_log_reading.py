"""Reading log files: merged by time, with rotated files, and followed across rotations."""

from __future__ import annotations

import heapq
import os
from datetime import datetime
from pathlib import Path

import pytest

from host_agent.cli.logs.reading import TAIL_BYTES, LogFile
from host_agent.cli.logs.since import parse_since
from vestal.platform import log_rotation

NOW = datetime(2026, 11, 28, 12, 0, 0).timestamp()


def event(ts: float, name: str) -> str:
    return f'{{"ts": {ts}, "component": "c", "event": "{name}", "cause": ""}}\n'


def texts(lines) -> list[str]:
    return [line.line.event or line.line.raw for line in lines]


@pytest.fixture
def log(tmp_path: Path) -> LogFile:
    return LogFile("mlx_engine", tmp_path / "engine.log")


def test_merged_logs_keep_lines_without_a_time_below_the_preceding_line_of_the_same_log(
    log: LogFile, tmp_path: Path
):
    log.path.write_text("head\n" + event(10, "a") + "Traceback\n  frame\n" + event(30, "b"))
    other = LogFile("agent", tmp_path / "agent.log")
    other.path.write_text(event(5, "first") + event(20, "between"))
    merged = heapq.merge(log.since(0), other.since(0))
    assert texts(merged) == ["first", "head", "a", "Traceback", "  frame", "between", "b"]


def test_logs_since_a_time_are_read_from_the_rotated_file_too(log: LogFile):
    log.path.with_name("engine.log.1").write_text(event(10, "old") + event(20, "kept"))
    log.path.write_text(event(30, "new"))
    assert texts(log.since(15)) == ["kept", "new"]


def test_logs_since_a_time_skip_a_rotated_file_last_changed_before_that_time(log: LogFile):
    rotated = log.path.with_name("engine.log.1")
    rotated.write_text(event(10, "old"))
    os.utime(rotated, (10, 10))
    log.path.write_text(event(30, "new"))
    assert texts(log.since(15)) == ["new"]


def test_log_tail_of_very_long_lines_has_the_requested_number_of_lines(log: LogFile):
    log.path.write_text("".join(event(at, "x" * (TAIL_BYTES // 2)) for at in range(5)))
    assert len(list(log.tail(5, whole=False))) == 5


def test_log_tail_just_after_a_rotation_includes_lines_of_the_rotated_file(log: LogFile):
    log.path.with_name("engine.log.1").write_text(event(10, "old"))
    log.path.write_text(event(20, "new"))
    assert texts(log.tail(20, whole=False)) == ["old", "new"]


def test_followed_log_gives_only_complete_lines_after_the_last_read(log: LogFile):
    log.path.write_text(event(1, "a") + '{"ts": 2, "event"')
    list(log.tail(20, whole=False))
    assert texts(log.new_lines()) == []
    with log.path.open("a") as file:
        file.write(': "b"}\n')
    assert texts(log.new_lines()) == ["b"]
    assert texts(log.new_lines()) == []


def test_followed_log_across_a_rotation_loses_and_repeats_no_line(log: LogFile):
    log.path.write_text(event(1, "a") * 50)
    list(log.tail(20, whole=False))
    with log.path.open("a") as file:
        file.write(event(2, "before"))
    assert log_rotation.rotate(log.path.parent, max_bytes=10) == [log.path]
    with log.path.open("a") as file:
        file.write(event(3, "after"))
    assert texts(log.new_lines()) == ["before", "after"]


def test_followed_log_that_does_not_exist_yet_is_read_from_its_first_line(log: LogFile):
    assert not log.exists()
    assert texts(log.tail(20, whole=False)) == texts(log.new_lines()) == []
    log.path.write_text(event(1, "a"))
    assert texts(log.new_lines()) == ["a"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("10m", datetime(2026, 11, 28, 11, 50)),
        ("10 min", datetime(2026, 11, 28, 11, 50)),
        ("2h ago", datetime(2026, 11, 28, 10)),
        ("1.5h", datetime(2026, 11, 28, 10, 30)),
        ("90s", datetime(2026, 11, 28, 11, 58, 30)),
        ("3d", datetime(2026, 11, 25, 12)),
        ("11:30", datetime(2026, 11, 28, 11, 30)),
        ("23:30", datetime(2026, 11, 27, 23, 30)),
        ("today", datetime(2026, 11, 28)),
        ("yesterday", datetime(2026, 11, 27)),
        ("2026-11-02", datetime(2026, 11, 2)),
        ("2026-11-02 05:23:46", datetime(2026, 11, 2, 5, 23, 46)),
    ],
)
def test_parse_since_accepts_time_spans_clock_times_and_dates(text: str, expected: datetime):
    assert parse_since(text, NOW) == expected.timestamp()


def test_parse_since_takes_a_time_with_a_utc_offset_as_that_offset_and_not_as_local_time():
    assert (
        parse_since("2026-11-28T00:00:00Z", NOW)
        == datetime.fromisoformat("2026-11-28T00:00:00+00:00").timestamp()
    )


def test_parse_since_of_a_date_before_1970_means_all_lines():
    assert parse_since("9" * 400 + "d", NOW) == parse_since("100000d", NOW) == 0.0


@pytest.mark.parametrize("text", ["", "soon", "10", "10x", "25:00", "2026-13-01", "-5m"])
def test_parse_since_refuses_an_invalid_time_with_examples(text: str):
    with pytest.raises(ValueError, match="give one such as 10m, 2h"):
        parse_since(text, NOW)
