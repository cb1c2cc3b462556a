"""Commands in a home whose agent does not answer, also because the agent of another home has its port."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from host_agent.errors import RequestRefused
from host_agent.journal import Journal
from tests.services.http_servers import serving
from tests.services.in_process import vestal
from vestal.supervision import write_pid_file
from vestal.supervision.processes.identity import identify

TOKEN = "token of the first home"


class Agent(BaseHTTPRequestHandler):
    """Answers as the agent of a home whose token is TOKEN."""

    def do_GET(self) -> None:
        is_allowed = self.path == "/health" or self.headers.get("Authorization") == f"Bearer {TOKEN}"
        refusal = {"error": {"code": "unauthorized", "message": "The token is in /home/other/.vestal/token."}}
        body = json.dumps({"services": {}, "healthy": True} if is_allowed else refusal).encode()
        self.send_response(200 if is_allowed else 401)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """Serve an agent in this process; return its port."""
    with serving(ThreadingHTTPServer(("127.0.0.1", 0), Agent)) as server:
        yield server.server_address[1]


def _env(home: Path, port: int) -> dict[str, str]:
    return {"HOME": str(home), "VESTAL_HOME": str(home), "VESTAL_AGENT_PORT": str(port)}


@pytest.mark.parametrize("token", ["another token", None])
def test_status_command_on_the_port_of_another_homes_agent_says_so_and_exits_with_2(
    tmp_path: Path, port: int, token: str | None
):
    """With a token of its own it printed nothing and exited with 1, without one with 78."""
    if token:
        (tmp_path / "token").write_text(token)
    as_json = vestal(("status", "--json"), _env(tmp_path, port))
    assert (as_json.returncode, as_json.stderr) == (2, "")
    answer = json.loads(as_json.stdout)
    assert (answer["services"], answer["healthy"], answer["agent"]) == ({}, False, "port_taken")
    said = vestal(("status",), _env(tmp_path, port))
    assert said.returncode == 2
    assert said.stdout.startswith(f"Down: No agent runs for {tmp_path}")
    assert f"the agent of another home holds port {port}" in said.stdout
    assert "VESTAL_AGENT_PORT" in said.stdout


def test_status_command_in_a_copied_home_does_not_show_the_services_of_the_original(
    tmp_path: Path, port: int
):
    """A copy has the original's token, so the original's agent answers all its requests."""
    original, copy = tmp_path / "original", tmp_path / "copy"
    me = identify(os.getpid())
    assert me is not None
    write_pid_file(original / "run" / "agent.json", me)
    (original / "token").write_text(TOKEN)
    shutil.copytree(original, copy)
    shown = vestal(("status", "--json"), _env(original, port))
    assert (shown.returncode, json.loads(shown.stdout)) == (0, {"services": {}, "healthy": True})
    assert vestal(("status", "--json"), _env(copy, port)).returncode == 2


def test_incidents_command_on_the_port_of_another_homes_agent_reads_its_own_journal(
    tmp_path: Path, port: int
):
    """It ended with the refusal of the other home's agent."""
    (tmp_path / "token").write_text("another token")
    journal = Journal(tmp_path / "journal.db")
    journal.record("ollama", "child_gave_up", "exit code 78", code=78)
    journal.close()
    listed = vestal(("incidents", "--json"), _env(tmp_path, port))
    assert listed.returncode == 0, listed.stderr
    (incident,) = json.loads(listed.stdout)["incidents"]
    one = vestal(("incidents", str(incident["id"]), "--json"), _env(tmp_path, port))
    assert [each["event"] for each in json.loads(one.stdout)["entries"]] == ["child_gave_up"]


def test_dry_run_on_the_port_of_another_homes_agent_shows_the_plan_of_its_own_home(tmp_path: Path, port: int):
    (tmp_path / "token").write_text("another token")
    said = vestal(("recover", "--dry-run"), _env(tmp_path, port))
    assert said.returncode == 1
    assert f"No agent runs for {tmp_path}" in said.stdout
    plan = json.loads(vestal(("recover", "--dry-run", "--json"), _env(tmp_path, port)).stdout)
    assert (plan["done"], plan["healthy"]) == ([], False)
    assert "VESTAL_AGENT_PORT" in plan["left"][0]


def test_dry_run_without_an_agent_prints_a_report_as_json(tmp_path: Path):
    """It printed the sentences for a person, which no program can read."""
    done = vestal(("recover", "--dry-run", "--json"), _env(tmp_path, 1))
    assert done.returncode == 1
    plan = json.loads(done.stdout)
    assert plan["found"] == [f"agent: No agent runs for {tmp_path}."]
    assert plan["done"] == ["agent: would start it, and then check everything else"]
    assert (plan["state"], plan["left"], plan["healthy"]) == ("done", [], False)


def test_request_that_the_agent_refuses_ends_a_command_with_64():
    assert RequestRefused.exit_code == 64


def test_status_command_while_the_token_of_the_running_agent_is_missing_says_so_and_exits_with_2(
    tmp_path: Path, port: int
):
    """It exited with 78, without JSON."""
    me = identify(os.getpid())
    assert me is not None
    write_pid_file(tmp_path / "run" / "agent.json", me)
    shown = vestal(("status", "--json"), _env(tmp_path, port))
    assert shown.returncode == 2
    answer = json.loads(shown.stdout)
    assert answer["error"] == f"The agent (PID {os.getpid()}) runs, but its token cannot be read."
    assert str(tmp_path / "token") in answer["remedy"]
