"""The limit of open files, raised in a process of its own, and how many clients it leaves room for."""

from __future__ import annotations

import resource
import subprocess
import sys

import pytest

from vestal.web.descriptors import MAX_CONNECTIONS, MIN_CONNECTIONS, RESERVED, WANTED

PROGRAM = """
import resource
from vestal.web.descriptors import max_connections, raise_descriptor_limit
before = max_connections()
print(raise_descriptor_limit(), resource.getrlimit(resource.RLIMIT_NOFILE)[0], before, max_connections())
"""
HARD = resource.getrlimit(resource.RLIMIT_NOFILE)[1]


def limits_after(soft: int, hard: int) -> list[int]:
    """Return the limit that is returned, the one in force, and the room for clients before and after."""
    command = f"ulimit -Sn {soft} && ulimit -Hn {hard} && exec {sys.executable} -c '{PROGRAM}'"
    result = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True, timeout=60)
    return [int(word) for word in result.stdout.split()]


def test_soft_limit_of_open_files_is_raised_to_the_wanted_number():
    returned, in_force, before, after = limits_after(256, WANTED + 1000)
    assert returned == in_force == WANTED
    assert (before, after) == (256 - RESERVED, MAX_CONNECTIONS)


@pytest.mark.parametrize(
    ("hard", "clients"), [(256, 256 - RESERVED), (1000, 1000 - RESERVED), (64, MIN_CONNECTIONS)]
)
def test_raised_limit_of_open_files_does_not_exceed_the_hard_limit(hard: int, clients: int):
    assert limits_after(min(64, hard), hard)[1:] == [hard, MIN_CONNECTIONS, clients]


@pytest.mark.skipif(HARD < WANTED + 100, reason="the hard limit here is too low for a higher soft limit")
def test_soft_limit_of_open_files_above_the_wanted_number_is_not_changed():
    assert limits_after(WANTED + 100, WANTED + 100)[:2] == [WANTED + 100, WANTED + 100]


def test_open_file_limit_is_raised_to_a_lower_number_if_the_system_refuses_the_wanted_one(
    monkeypatch: pytest.MonkeyPatch,
):
    """A Mac's setrlimit() fails with EINVAL above kern.maxfilesperproc."""
    from vestal.web import descriptors

    allowed: list[int] = []

    def setrlimit(which: int, limits: tuple[int, int]) -> None:
        if limits[0] > 3000:
            raise ValueError("current limit exceeds maximum limit")
        allowed.append(limits[0])

    monkeypatch.setattr(resource, "getrlimit", lambda which: (256, resource.RLIM_INFINITY))
    monkeypatch.setattr(resource, "setrlimit", setrlimit)
    assert descriptors.raise_descriptor_limit() == 2048
    assert allowed == [2048]
