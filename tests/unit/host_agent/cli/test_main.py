"""How the command line reports errors, a bug of its own included."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from host_agent.cli.main import _write_traceback, main
from vestal.config import load


def test_log_of_a_bug_and_its_new_folders_can_be_read_by_their_owner_only(tmp_path: Path):
    config = load({"HOME": str(tmp_path), "VESTAL_HOME": str(tmp_path / "home")}, tmp_path)
    try:
        raise ValueError("a bug")
    except ValueError:
        clause = _write_traceback(config)
    log = config.home.logs / "vestal.log"
    assert clause == f"{log} has the details"
    assert "ValueError: a bug" in log.read_text()
    modes = [path.stat().st_mode & 0o777 for path in (config.home.root, config.home.logs, log)]
    assert modes == [0o700, 0o700, 0o600]


@pytest.fixture
def logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of the logs of a new home, which the commands of the test use."""
    monkeypatch.setenv("VESTAL_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    folder = load({"HOME": str(tmp_path), "VESTAL_HOME": str(tmp_path)}, tmp_path).home.logs
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def test_logs_command_shows_all_lines_although_one_has_an_impossible_time_or_character(
    logs: Path, capsys: pytest.CaptureFixture[str]
):
    """Such a line ended the command as a bug, with exit code 70, and nothing after it was shown."""
    lines = [
        '{"ts": 1700000000123, "msg": "milliseconds"}',
        '{"ts": 1700000000, "event": "logged", "cause": "half \\ud83d"}',
        '{"ts": 1700000001, "msg": "fine"}',
    ]
    (logs / "ollama.log").write_text("\n".join(lines) + "\n")
    assert main(["logs", "ollama"]) == 0
    first, second, third = capsys.readouterr().out.splitlines()
    assert "milliseconds" in first and "Half \\ud83d" in second and "fine" in third


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has /dev/full")
@pytest.mark.parametrize("are_both_full", [False, True])
def test_command_whose_output_cannot_be_written_ends_with_74_and_not_with_a_traceback_of_python(
    are_both_full: bool, logs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """Output waits in a buffer, which Python wrote only when it exited: `vestal version > /dev/full` ended
    with 120 and an ignored exception.
    """
    full = Path("/dev/full")
    with full.open("w") as first, full.open("w") as second:  # closing raises if text is left
        monkeypatch.setattr(sys, "stdout", first)
        if are_both_full:
            monkeypatch.setattr(sys, "stderr", second)
        assert main(["version"]) == 74
    assert ("There is no space left on the disk: free some" in capsys.readouterr().err) is not are_both_full
