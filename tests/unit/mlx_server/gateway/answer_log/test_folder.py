"""The lock that keeps two gateways from using one answer log."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlx_server.gateway.answer_log.folder import WHAT, AnswerFolder, LogInUse
from vestal.best_effort.failures import FAILURES


@pytest.fixture
def folder(tmp_path: Path) -> AnswerFolder:
    made = AnswerFolder(tmp_path / "answers")
    made.make()
    made.lock()
    return made


def _other(folder: AnswerFolder) -> AnswerFolder:
    return AnswerFolder(folder.path)


def test_lock_whose_file_was_deleted_is_taken_again_so_that_the_next_gateway_still_waits(folder):
    """Two gateways once owned one answer log, after somebody had tidied the home folder."""
    folder.path.with_name("answers.lock").unlink()
    folder.renew_lock()
    with pytest.raises(LogInUse):
        _other(folder).lock()
    folder.unlock()
    _other(folder).lock()


def test_lock_of_an_answer_folder_is_checked_every_five_seconds(folder):
    assert [folder.is_lock_check_due(now) for now in (0.0, 0.5, 4.9, 5.0, 5.5)] == [
        True,
        False,
        False,
        True,
        False,
    ]


def test_renewing_a_lock_whose_file_still_exists_keeps_the_lock(folder):
    folder.renew_lock()
    with pytest.raises(LogInUse):
        _other(folder).lock()


def test_lock_that_another_gateway_took_first_is_reported_as_a_failure_of_the_log(folder):
    folder.path.with_name("answers.lock").unlink()
    other = _other(folder)
    other.lock()
    folder.renew_lock()
    try:
        assert "another gateway uses the answer log" in FAILURES.as_json()[WHAT]["error"]
    finally:
        other.unlock()
        folder.renew_lock()
    assert FAILURES.as_json()[WHAT]["failing_since"] is None
