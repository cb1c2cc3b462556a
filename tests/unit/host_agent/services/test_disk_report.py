"""What the status says about writes that fail, now or before."""

from __future__ import annotations

from typing import Any

from host_agent.services.disk_report import failing_since, journal_note, lost, message

NO_SPACE = "No space left on device"


def _writes(failed: int, since: float | None) -> dict[str, Any]:
    return {"failed": failed, "failing_since": since, "error": NO_SPACE}


def test_disk_report_names_each_error_once_with_the_lost_lines_and_the_remedy():
    failures = {
        "agent": {"journal": _writes(1, 50.0), "pid_file": _writes(1, 60.0)},
        "mlx_server": {"log": _writes(10, 40.0)},
        "mlx_engine": {"log": _writes(2, None)},
    }
    text = message(failures, "/home/me/.vestal")
    assert failing_since(failures) == 40.0
    assert text.count(NO_SPACE) == 1
    assert "/home/me/.vestal" in text
    assert "Lost so far: 1 event of the journal, 12 log lines." in text
    assert "vestal doctor" in text


def test_disk_report_is_empty_once_all_writes_succeed_again():
    failures = {"mlx_server": {"log": _writes(10, None)}}
    assert message(failures, "/home") == ""
    assert failing_since(failures) is None
    assert lost(failures) == "10 log lines"


def test_disk_report_of_a_failure_without_losses_mentions_no_losses():
    assert "Lost" not in message({"agent": {"pid_file": _writes(1, 50.0)}}, "/home")


def test_status_note_on_a_damaged_journal_names_its_newest_copy():
    assert journal_note([]) == ""
    assert "journal.db.damaged-2" in journal_note(["journal.db.damaged-1", "journal.db.damaged-2"])
