"""`vestal task` while the orchestrator cannot show the task, and the output of `vestal task --cancel`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from http.server import HTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from host_agent.cli.orchestrator import task
from host_agent.cli.orchestrator.client import OrchestratorClient, OrchestratorUnavailable
from host_agent.errors import HostAgentError, OrchestratorRefused, OrchestratorUnreachable
from tests.services.http_servers import JsonAnswers, serving
from tests.services.in_process import vestal

AWAY = "Postgres at db:5432 cannot be used: see whether its server runs."
TASK: dict[str, Any] = {"id": "t", "state": "running", "steps": []}


class Unavailable(JsonAnswers):
    """Answers every request with 503. The last part of the path is the error's code."""

    def do_GET(self) -> None:
        self.answer({"error": {"code": self.path.rpartition("/")[2], "message": AWAY}}, 503)


@pytest.mark.parametrize(
    ("code", "error", "exit_code", "words"),
    [
        ("database_unavailable", OrchestratorUnavailable, 69, "cannot do this for now: Postgres at db"),
        ("queue_full", OrchestratorRefused, 64, "refused: Postgres at db"),
        ("backend_unavailable", OrchestratorRefused, 64, "refused: Postgres at db"),
    ],
)
def test_orchestrator_client_reports_only_an_unusable_database_as_unavailable(
    tmp_path: Path, code: str, error: type[HostAgentError], exit_code: int, words: str
):
    """A full queue ended `vestal task` with 69, as if no orchestrator had answered."""
    (tmp_path / "token").write_text("a token")
    home = SimpleNamespace(token=tmp_path / "token")
    with serving(HTTPServer(("127.0.0.1", 0), Unavailable)) as server:
        port = SimpleNamespace(port=server.server_address[1])
        client = OrchestratorClient(SimpleNamespace(home=home, orchestrator=port))  # type: ignore[arg-type]
        with pytest.raises(error, match=words) as raised:
            client.get(f"/{code}")
    assert (type(raised.value), raised.value.exit_code) == (error, exit_code)


class Client:
    """Streams that end as `ends` says, one after the other; the task is done in the stream after these."""

    def __init__(self, *ends: Exception) -> None:
        self.ends = list(ends)

    def events(self, path: str) -> Iterator[dict[str, Any]]:
        if not self.ends:
            yield {**TASK, "state": "done"}
            return
        yield TASK
        raise self.ends.pop(0)


def test_task_command_waits_while_the_orchestrator_cannot_use_its_database(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    """The command ended with exit code 64, as if the request had been refused, but the task went on."""
    monkeypatch.setattr(task, "RECONNECT_DELAY_S", 0.0)
    said = f"The orchestrator cannot do this for now: {AWAY}"
    client: Any = Client(OrchestratorUnreachable("timed out"), OrchestratorUnavailable(said))
    assert task._wait_for_end(client, "t")["state"] == "done"
    shown = capsys.readouterr().err
    assert "the orchestrator is away; the task goes on when it is back" in shown
    assert f"{said[:-1]}; the task goes on when it is back" in shown


class Cancels(JsonAnswers):
    """Answers every DELETE as the orchestrator answers the cancellation of a task."""

    def do_DELETE(self) -> None:
        self.answer({"id": self.path.rpartition("/")[2], "state": "cancelled"})


def test_task_cancel_command_prints_the_answer_as_json_if_asked(tmp_path: Path):
    """It printed a sentence, which no program can read."""
    (tmp_path / "token").write_text("a token")
    task_id = "5c1b2f0e-9a57-4a0e-8a53-3f4b1f0c9b11"
    with serving(HTTPServer(("127.0.0.1", 0), Cancels)) as server:
        home = {"HOME": str(tmp_path), "VESTAL_HOME": str(tmp_path)}
        env = home | {"VESTAL_ORCHESTRATOR_PORT": str(server.server_address[1])}
        said = vestal(("task", "--cancel", task_id), env)
        as_json = vestal(("task", "--cancel", task_id, "--json"), env)
    assert (said.returncode, said.stdout) == (0, f"task {task_id}: cancelled\n")
    assert (as_json.returncode, json.loads(as_json.stdout)) == (0, {"id": task_id, "state": "cancelled"})
