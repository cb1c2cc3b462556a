"""Kills for memory are counted in the own cgroup, or on the whole machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from vestal.platform import oom_kills


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/vmstat").write_text("nr_free_pages 7\noom_kill 62\n")
    (tmp_path / "proc/self/cgroup").write_text("4:memory:/old\n0::/user.slice/gateway\n")
    (tmp_path / "cgroup/user.slice/gateway").mkdir(parents=True)
    return tmp_path


def count(machine: Path) -> int | None:
    return oom_kills.count(machine / "proc", machine / "cgroup")


def test_oom_kill_count_comes_from_the_own_cgroup_rather_than_from_the_whole_machine(machine):
    (machine / "cgroup/user.slice/gateway/memory.events").write_text("low 0\noom 4\noom_kill 3\n")
    assert count(machine) == 3


def test_oom_kill_count_without_a_version_2_cgroup_comes_from_the_whole_machine(machine):
    assert count(machine) == 62
    (machine / "proc/self/cgroup").write_text("4:memory:/old\n")
    assert count(machine) == 62


def test_oom_kill_count_that_the_kernel_does_not_provide_is_none(tmp_path):
    assert count(tmp_path) is None
