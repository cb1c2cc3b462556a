"""The checks before `vestal up` starts anything: Docker's memory, the Hugging Face hub; and their report."""

from __future__ import annotations

import http.server
import re
import ssl
import subprocess
import sys
import threading
import urllib.error
import urllib.request

import pytest

from host_agent.cli.run.preflight import NotStarted, check_ollama
from host_agent.doctor.finding import Finding
from host_agent.doctor.memory.docker_share import assess_share
from host_agent.doctor.models import hub
from vestal.config import load

GIB = 1024**3
DESKTOP = 8091 * 1024**2  # Docker Desktop 4.63's default on a Mac
LISTENER = (
    "import socket, time; s = socket.create_server(('127.0.0.1', 0)); "
    "print(s.getsockname()[1], flush=True); time.sleep(60)"
)
PORT = Finding("port_in_use", "fault", "Port 11435 is held by x.", "Stop it.")
DISK = Finding("disk_full", "fault", "Only 3 MB are free.", "Free some.")
MODEL = Finding("missing_model", "fault", "mlx.preload asks for nosuch.", "Name another.")


@pytest.mark.parametrize(
    ("machine", "docker", "limits", "weights", "level", "words"),
    [
        # Docker Desktop on a Mac: its virtual machine has a part of the memory, by default 7.9 of 16 GiB.
        (16 * GIB, DESKTOP, 4 * GIB, 9 * GIB, "fault", "virtual machine may take 7.9 GiB .* need 9.0 GiB"),
        (16 * GIB, 12 * GIB, 4 * GIB, 2 * GIB, "note", "virtual machine may take 12.0 GiB"),
        (24 * GIB, 8 * GIB, 4 * GIB, 9 * GIB, "ok", "virtual machine may take 8.0 GiB"),
        # Docker on Linux shares the machine's memory; containers have limits, which they rarely reach.
        (16 * GIB, 16 * GIB, 4 * GIB, 9 * GIB, "ok", "containers may take 4.0 GiB"),
        (16 * GIB, 16 * GIB, 8 * GIB, 9 * GIB, "note", "containers may take 8.0 GiB .* need 9.0 GiB"),
    ],
)
def test_docker_memory_share_is_a_preflight_fault_only_if_the_models_do_not_fit_in_the_rest(
    machine, docker, limits, weights, level, words
):
    found = assess_share(machine, docker, limits, weights)
    assert found.level == level
    assert bool(found.remedy) == (level != "ok")
    assert re.search(words, found.sentence), found.sentence


@pytest.mark.parametrize(
    ("faults", "exit_code"), [([PORT], 75), ([DISK], 69), ([PORT, DISK], 69), ([PORT, DISK, MODEL], 78)]
)
def test_refusal_to_start_lists_all_faults_with_their_remedies(faults, exit_code):
    error = NotStarted(faults)
    assert error.exit_code == exit_code
    for fault in faults:
        assert f"{fault.sentence} {fault.remedy}" in str(error)
    assert len(str(error).splitlines()) == (1 if len(faults) == 1 else 1 + len(faults))


def test_preflight_checks_the_hub_only_if_a_model_must_be_downloaded_from_it(home, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    config = load(env={"VESTAL_HOME": str(home)}, cwd=home)
    assert [found.level for found in hub.diagnose(config)] == ["ok"], "none is of the hub"
    wants_one = {"VESTAL_HOME": str(home), "MLX_PRELOAD_MODELS": "mlx-community/Qwen3-4B-4bit"}
    config = load(env=wants_one, cwd=home)
    (found,) = hub.diagnose(config)
    assert found.level == "fault"
    assert "must be fetched from 127.0.0.1:1, which does not answer (Connection refused)" in found.sentence
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (found,) = hub.diagnose(config)
    assert "HF_HUB_OFFLINE forbids that" in found.sentence


@pytest.mark.parametrize(("manage", "level"), [("auto", "note"), ("always", "fault"), ("off", "")])
def test_foreign_program_on_ollamas_port_is_a_preflight_fault_only_if_vestal_must_manage_ollama(
    home, manage, level
):
    with subprocess.Popen([sys.executable, "-c", LISTENER], stdout=subprocess.PIPE, text=True) as stranger:
        assert stranger.stdout
        port = stranger.stdout.readline().strip()
        env = {"OLLAMA_BASE_URL": f"http://127.0.0.1:{port}", "VESTAL_OLLAMA__MANAGE": manage}
        config = load(env={"VESTAL_HOME": str(home), **env}, cwd=home)
        found = [each for each in check_ollama(config) if port in each.sentence]
        stranger.kill()
    assert [each.level for each in found] == ([level] if level else [])
    assert all("is not Ollama's" in each.sentence and each.remedy for each in found)


def test_preflight_counts_the_hub_as_reachable_whatever_status_it_answers_with():
    class Refusing(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_error(401)

        def log_message(self, *arguments: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Refusing) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        assert hub.why_unreachable(f"http://127.0.0.1:{server.server_port}/api/models/a/b") == ""


def test_preflight_counts_the_hub_as_reachable_if_only_this_python_does_not_trust_its_certificate(
    home, monkeypatch
):
    """python.org's Python has no certificates of its own on macOS, where the fetch asks the Keychain."""

    def distrusting(*arguments: object, **options: object) -> None:
        raise urllib.error.URLError(ssl.SSLCertVerificationError(1, "certificate verify failed"))

    monkeypatch.setattr(urllib.request, "urlopen", distrusting)
    wants_one = {"VESTAL_HOME": str(home), "MLX_PRELOAD_MODELS": "mlx-community/Qwen3-4B-4bit"}
    (found,) = hub.diagnose(load(env=wants_one, cwd=home))
    assert found.level == "ok", found.sentence
