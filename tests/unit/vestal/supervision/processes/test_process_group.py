"""The exit status of a process whose supervisor was replaced while it ran."""

from __future__ import annotations

import os

import pytest

from vestal.supervision import ProcessIdentity
from vestal.supervision.lifecycle.states import ExitStatus
from vestal.supervision.processes import process_group
from vestal.supervision.processes.process_group import ProcessGroup

NO_PID = 2**22 + 1


async def announce(pid: int) -> None:
    """Take the place of the kernel, which announces the exit of the process at once."""


@pytest.fixture
def group(monkeypatch: pytest.MonkeyPatch) -> ProcessGroup:
    monkeypatch.setattr(process_group, "wait_for_exit", announce)
    return ProcessGroup(ProcessIdentity(NO_PID, 1.0))


async def test_exit_status_of_an_adopted_child_is_known_if_it_can_be_reaped_only_after_its_announcement(
    monkeypatch: pytest.MonkeyPatch, group: ProcessGroup
):
    """macOS announces the exit of a process before it is a zombie. Once, the status was lost then."""
    answers = iter([(0, 0), (0, 0), (NO_PID, 6)])
    monkeypatch.setattr(os, "waitpid", lambda pid, options: next(answers))
    assert await group.wait() == ExitStatus(signal=6)


async def test_exit_status_of_an_adopted_child_that_cannot_be_reaped_is_unknown_after_a_moment(
    monkeypatch: pytest.MonkeyPatch, group: ProcessGroup
):
    monkeypatch.setattr(process_group, "REAPABLE_WITHIN_S", 0.01)
    monkeypatch.setattr(os, "waitpid", lambda pid, options: (0, 0))
    assert await group.wait() == ExitStatus()
