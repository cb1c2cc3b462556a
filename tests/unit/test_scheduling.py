"""The order in which pytest-xdist's workers begin the files of tests."""

from __future__ import annotations

import re

from tests.scheduling import LANES, ORDER, rank_of


def test_each_path_in_the_schedule_of_tests_exists(repo):
    for path in (*ORDER, *(path for lane in LANES.values() for path in lane)):
        assert (repo / path).exists(), f"tests/scheduling.py names {path}"


def test_each_file_in_the_table_of_slow_tests_exists(repo):
    table = (repo / "CONTRIBUTING.md").read_text()
    slow = re.findall(r"^\| \d+ \| ([\w/]+\.py) \|", table, re.MULTILINE)
    assert slow and not [path for path in slow if not (repo / "tests" / path).exists()]


def test_schedule_begins_serialized_tests_first_then_long_files_then_others_and_unit_tests_last():
    scopes = ["tests/unit/test_locks.py", "tests/component/test_tracing.py", ORDER[0], "engine"]
    assert sorted(scopes, key=rank_of) == list(reversed(scopes))
