"""Ollama hung, not running, of another user, or remote: with servers that answer as it does."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from host_agent.doctor.evidence import process_table
from host_agent.doctor.ollama import another_user, not_running
from host_agent.doctor.unresponsive.hung import diagnose_hung, diagnose_hung_since_sleep
from host_agent.journal import Journal
from host_agent.services import ollama
from tests.component.host_agent.doctor.conftest import faults, until
from vestal.config import Config

CHILDREN = Path(__file__).resolve().parents[3] / "children"
SYSTEM_PYTHON = "/usr/bin/python3"
NOBODY = 65534
EMPTY = {"/api/tags": (200, {"models": []}), "/api/version": (200, {"version": "0.15.5"})}
EMPTY_OLLAMA = """
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'{"models": []}')
    def log_message(self, *arguments): pass
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


@pytest.fixture
def at(configure: Callable[..., Config]) -> Callable[[int], Config]:
    """Return a function that loads settings with Ollama on this port."""

    def make(port: int) -> Config:
        return configure(VESTAL_OLLAMA__MANAGE="auto", VESTAL_OLLAMA__BASE_URL=f"http://127.0.0.1:{port}")

    return make


@pytest.fixture
def with_models(user: Path) -> Path:
    """The user has pulled two models."""
    for name in ("registry.ollama.ai/library/llama3.2/3b", "hf.co/org/model/Q4_K_M"):
        path = user / ".ollama/models/manifests" / name
        path.parent.mkdir(parents=True)
        path.write_text("{}")
    return user


def test_hung_ollama_is_reported_with_its_pid(at, run, free_port, tmp_path: Path):
    port, flag = free_port(), tmp_path / "hang"
    flag.touch()
    process = run(sys.executable, str(CHILDREN / "answers_http.py"), str(port), str(flag))
    found = until(lambda: faults(diagnose_hung(at(port), timeout_s=0.5)), "it listens")
    assert f"ollama (PID {process.pid}) hangs." == found[0].sentence
    assert "no answer within 0.5 s" in found[0].evidence
    assert f"`kill {process.pid}`, then `ollama serve`" in found[0].remedy


def test_ollama_hung_since_the_wake_is_reported_as_such_and_only_once(at, run, free_port, tmp_path: Path):
    port, flag = free_port(), tmp_path / "hang"
    flag.touch()
    config = at(port)
    process = run(sys.executable, str(CHILDREN / "answers_http.py"), str(port), str(flag))
    until(lambda: faults(diagnose_hung(config, lambda config: None, 0.3)), "it listens")
    woke_at = time.time()  # after it was started
    (found,) = faults(diagnose_hung_since_sleep(config, lambda config: woke_at, 0.3))
    assert f"ollama (PID {process.pid}) has hung since the machine slept." == found.sentence
    assert "the machine woke at" in found.evidence
    assert f"`kill {process.pid}`" in found.remedy
    assert faults(diagnose_hung(config, lambda config: woke_at, 0.3)) == [], (
        "only one of the two diagnoses reports it"
    )


def test_wake_in_the_agents_journal_counts(at, serve):
    config = at(serve({"/api/tags": (500, {"error": "reentrancy"})}))
    config.home.prepare()
    journal = Journal(
        config.home.journal_db, wall=lambda: time.time() + 60
    )  # after the start of this process
    journal.record("agent", "machine_woke", slept_s=3600.0)
    journal.close()
    (found,) = faults(diagnose_hung_since_sleep(config))
    assert "has hung since the machine slept" in found.sentence


def test_ollama_started_after_the_wake_hangs_for_another_reason(at, serve):
    config = at(serve({"/api/tags": (500, {"error": "reentrancy"})}))
    assert faults(diagnose_hung_since_sleep(config, lambda config: 1000.0)) == []
    assert len(faults(diagnose_hung(config, lambda config: 1000.0))) == 1


def test_ollama_that_answers_500_is_reported_as_hung(at, serve):
    (found,) = faults(diagnose_hung(at(serve({"/api/tags": (500, {"error": "reentrancy"})}))))
    assert "it answered 500" in found.evidence


def test_ollama_that_answers_is_not_hung(at, serve):
    assert faults(diagnose_hung(at(serve(EMPTY)))) == []


def test_ollama_without_the_users_models_reads_another_folder(at, serve, with_models):
    (found,) = another_user.diagnose(at(serve(EMPTY)))
    assert found.level == "fault"
    assert "hf.co/org/model:Q4_K_M, llama3.2:3b" in found.evidence
    assert f"PID {os.getpid()}" in found.evidence
    assert "OLLAMA_MODELS" in found.remedy


@pytest.mark.skipif(
    os.getuid() != 0 or not shutil.which(SYSTEM_PYTHON), reason="needs another user's process"
)
def test_ollama_of_another_user_is_reported_with_that_user(at, run, free_port, with_models):
    port = free_port()
    run(SYSTEM_PYTHON, "-I", "-c", EMPTY_OLLAMA, str(port), user=NOBODY, cwd="/")
    (found,) = until(lambda: list(another_user.diagnose(at(port))), "it answers")
    assert "runs as nobody and does not see the models of root" in found.sentence
    assert found.remedy.startswith("`sudo kill")


@pytest.mark.parametrize("models", [[], [{"name": "a"}]])
def test_ollama_of_a_user_without_models_is_ok(at, serve, user: Path, models: list[object]):
    found = list(another_user.diagnose(at(serve({"/api/tags": (200, {"models": models})}))))
    assert [each.level for each in found] == ["ok"]


def test_ollama_that_shows_its_users_models_is_ok(at, serve, with_models):
    models = [{"name": "llama3.2:3b"}, {"name": "hf.co/org/model:Q4_K_M"}]
    found = list(another_user.diagnose(at(serve({"/api/tags": (200, {"models": models})}))))
    assert [each.level for each in found] == ["ok"]


def test_ollama_installed_and_not_running_is_a_fault(at, free_port, monkeypatch):
    monkeypatch.setattr(ollama, "installed", lambda: True)
    (found,) = not_running.diagnose(at(free_port()))
    assert found.level == "fault"
    assert "`ollama serve`" in found.remedy


def test_ollama_mcp_is_not_taken_for_the_server(run, tmp_path: Path):
    (tmp_path / "serve").write_text("import signal; signal.pause()")
    name = str(tmp_path / "ollama-mcp")
    process = run(name, "serve", executable=sys.executable, cwd=tmp_path)
    until(lambda: process_table.read()[process.pid].command == f"{name} serve", "it runs")
    text = not_running.evidence({process.pid: process_table.read()[process.pid]})
    assert text == f"no `ollama serve` runs; {name} (PID {process.pid}) runs and is not it"


def test_ollama_not_installed_is_a_note(at, free_port, monkeypatch):
    monkeypatch.setattr(ollama, "installed", lambda: False)
    assert [found.level for found in not_running.diagnose(at(free_port()))] == ["note"]


def test_ollama_on_another_machine_that_does_not_answer_is_a_fault(configure, serve):
    url = f"http://localhost.localdomain.invalid:{serve(EMPTY)}"
    config = configure(VESTAL_OLLAMA__MANAGE="auto", VESTAL_OLLAMA__BASE_URL=url)
    (found,) = not_running.diagnose(config)
    assert found.level == "fault"
    assert "on that machine" in found.remedy
    assert list(another_user.diagnose(config)) == []


def test_another_program_on_the_port_of_ollama_is_reported(at, run, free_port):
    port = free_port()
    process = run(sys.executable, str(CHILDREN / "answers_http.py"), str(port))
    found = until(
        lambda: [f for f in not_running.diagnose(at(port)) if "is not Ollama's" in f.sentence],
        "it listens",
    )
    assert f"PID {process.pid}" in found[0].sentence
