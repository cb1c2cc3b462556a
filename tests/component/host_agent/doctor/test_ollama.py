"""Ollama not running, of another user, or on another machine: with servers that answer as Ollama does."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

from host_agent.doctor.evidence import process_table
from host_agent.doctor.ollama import another_user, not_running
from host_agent.services import ollama
from tests.children import stand_in_ollama
from tests.component.host_agent.doctor.conftest import CHILDREN, EMPTY_OLLAMA_ANSWERS, until
from vestal.platform import ports
from vestal.platform.processes.ps import PsProcess

SYSTEM_PYTHON = "/usr/bin/python3"
NOBODY = 65534


EMPTY_OLLAMA_PROGRAM = """
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
def with_models(user: Path) -> Path:
    """The user has pulled two models."""
    for name in ("registry.ollama.ai/library/llama3.2/3b", "hf.co/org/model/Q4_K_M"):
        path = user / ".ollama/models/manifests" / name
        path.parent.mkdir(parents=True)
        path.write_text("{}")
    return user


def test_doctor_reports_a_fault_if_ollama_does_not_list_the_models_of_the_user(
    config_with_ollama, serve, with_models
):
    (found,) = another_user.diagnose(config_with_ollama(serve(EMPTY_OLLAMA_ANSWERS)))
    assert found.level == "fault"
    assert "hf.co/org/model:Q4_K_M, llama3.2:3b" in found.evidence
    assert f"PID {os.getpid()}" in found.evidence
    assert "OLLAMA_MODELS" in found.remedy


@pytest.mark.skipif(
    os.getuid() != 0 or not shutil.which(SYSTEM_PYTHON), reason="needs another user's process"
)
def test_doctor_reports_an_ollama_run_by_another_user_with_that_users_name(
    config_with_ollama, run, free_port, with_models
):
    port = free_port()
    run(SYSTEM_PYTHON, "-I", "-c", EMPTY_OLLAMA_PROGRAM, str(port), user=NOBODY, cwd="/")
    (found,) = until(lambda: list(another_user.diagnose(config_with_ollama(port))), "it answers")
    assert "runs as nobody and does not see the models of root" in found.sentence
    assert found.remedy.startswith("`sudo kill")


@pytest.mark.parametrize("models", [[], [{"name": "a"}]])
def test_doctor_reports_ollama_as_ok_if_the_user_has_no_models(
    config_with_ollama, serve, user: Path, models: list[object]
):
    found = list(another_user.diagnose(config_with_ollama(serve({"/api/tags": (200, {"models": models})}))))
    assert [each.level for each in found] == ["ok"]


def test_doctor_reports_ok_if_ollama_lists_the_models_of_the_user(config_with_ollama, serve, with_models):
    models = [{"name": "llama3.2:3b"}, {"name": "hf.co/org/model:Q4_K_M"}]
    found = list(another_user.diagnose(config_with_ollama(serve({"/api/tags": (200, {"models": models})}))))
    assert [each.level for each in found] == ["ok"]


def test_doctor_names_the_address_of_an_ollama_that_listens_at_another_port(
    config_with_ollama, run, free_port, tmp_path: Path, monkeypatch
):
    """Earlier, the remedy was to start a second `ollama serve`."""
    monkeypatch.setattr(ollama, "installed", lambda: True)
    there = f"127.0.0.1:{free_port()}"
    server = run(str(stand_in_ollama.install(tmp_path)), "serve", env=os.environ | {"OLLAMA_HOST": there})
    until(lambda: there in ports.listening_at(server.pid), "it listens")
    served = PsProcess(server.pid, 1, os.getuid(), "S", 1, "ollama serve")
    monkeypatch.setattr(process_table, "read", lambda: {server.pid: served})
    (found,) = not_running.diagnose(config_with_ollama(free_port()))
    assert found.evidence == f"`ollama serve` runs (PID {server.pid}) and listens at {there}"
    assert "OLLAMA_BASE_URL" in found.remedy


def test_doctor_reports_an_installed_ollama_that_does_not_run_as_a_fault(
    config_with_ollama, free_port, monkeypatch
):
    monkeypatch.setattr(ollama, "installed", lambda: True)
    (found,) = not_running.diagnose(config_with_ollama(free_port()))
    assert found.level == "fault"
    assert "`ollama serve`" in found.remedy


def test_doctor_does_not_mistake_ollama_mcp_for_the_ollama_server(run, tmp_path: Path):
    (tmp_path / "serve").write_text("import signal; signal.pause()")
    name = str(tmp_path / "ollama-mcp")
    process = run(name, "serve", executable=sys.executable, cwd=tmp_path)
    until(lambda: process_table.read()[process.pid].command == f"{name} serve", "it runs")
    text = not_running.evidence({process.pid: process_table.read()[process.pid]})
    assert text == f"no `ollama serve` runs; {name} (PID {process.pid}) runs and is not it"


def test_doctor_reports_an_ollama_that_is_not_installed_as_a_note(config_with_ollama, free_port, monkeypatch):
    monkeypatch.setattr(ollama, "installed", lambda: False)
    assert [found.level for found in not_running.diagnose(config_with_ollama(free_port()))] == ["note"]


def test_doctor_reports_an_unreachable_ollama_on_another_machine_as_a_fault(configure, serve):
    url = f"http://localhost.localdomain.invalid:{serve(EMPTY_OLLAMA_ANSWERS)}"
    config = configure(VESTAL_OLLAMA__MANAGE="auto", VESTAL_OLLAMA__BASE_URL=url)
    (found,) = not_running.diagnose(config)
    assert found.level == "fault"
    assert "on that machine" in found.remedy
    assert list(another_user.diagnose(config)) == []


def test_doctor_reports_another_program_on_the_port_of_ollama(config_with_ollama, run, free_port):
    port = free_port()
    process = run(sys.executable, str(CHILDREN / "answers_http.py"), str(port))
    found = until(
        lambda: [
            f for f in not_running.diagnose(config_with_ollama(port)) if "is not Ollama's" in f.sentence
        ],
        "it listens",
    )
    assert f"PID {process.pid}" in found[0].sentence
