"""`vestal incidents` without a running agent, which reads the journal's file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from host_agent.cli import parser
from host_agent.cli.inspect import incidents
from host_agent.errors import HostAgentError, InvalidOption
from host_agent.journal import Journal
from vestal.config import load


@pytest.fixture
def show(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run the command with a journal in which a gateway gave up and an engine was killed; return its
    output.
    """
    config = load({"HOME": str(tmp_path), "VESTAL_HOME": str(tmp_path), "VESTAL_AGENT_PORT": "1"}, tmp_path)
    now = [1_000_000.0]
    journal = Journal(config.home.journal_db, wall=lambda: now[0])
    journal.record("ollama", "child_gave_up", "exit code 78", code=78)
    now[0] += 5000
    journal.record("mlx_engine", "child_exited", "killed by SIGKILL", pid=7, code=None, signal=9)
    journal.record("mlx_engine", "child_restarting", "killed by SIGKILL \x1b[2J", attempt=0)
    now[0] += 2
    journal.record("mlx_engine", "child_ready", "", pid=8, start_s=1.0)
    journal.close()

    def run(*arguments: str) -> str:
        assert incidents.run(parser.parse(["incidents", *arguments]), config) == 0
        return capsys.readouterr().out

    return run


def test_incidents_command_lists_a_sentence_for_each_incident_newest_first(show):
    first, second = show().splitlines()[1:]
    assert "the engine was killed (SIGKILL, sender unknown); no request was running." in first
    assert first.split()[:3] == ["3", "2", "s"]
    assert "Ollama failed (exit code 78); it cannot start (exit code 78)" in second
    assert "open" in second


@pytest.mark.parametrize(
    ("arguments", "ids"),
    [((), [3, 1]), (("-n", "1"), [3]), (("-n", "0"), []), (("--since", "1970-01-12 15:00"), [3, 1])],
)
def test_incidents_json_has_only_the_requested_incidents(show, arguments: Any, ids: list[int]):
    assert [each["id"] for each in json.loads(show("--json", *arguments))["incidents"]] == ids


def test_incidents_command_shows_one_incident_with_its_journal_lines(show):
    output = show("3")
    assert output.startswith("The engine was killed\n")
    assert "child_exited" in output and "child_ready" in output and "child_gave_up" not in output
    assert "\x1b" not in output, "a log line may hold commands for the terminal"
    assert [each["event"] for each in json.loads(show("3", "--json"))["entries"]][0] == "child_exited"


def test_incidents_command_fails_with_one_sentence_for_an_unknown_id_or_bad_time_or_missing_journal(
    show, tmp_path: Path
):
    with pytest.raises(HostAgentError, match="There is no incident 99"):
        show("99")
    with pytest.raises(InvalidOption, match="--since"):
        show("--since", "soon")
    config = load({"HOME": str(tmp_path), "VESTAL_HOME": str(tmp_path / "new"), "VESTAL_AGENT_PORT": "1"})
    with pytest.raises(HostAgentError, match="no journal yet"):
        incidents.run(parser.parse(["incidents"]), config)
