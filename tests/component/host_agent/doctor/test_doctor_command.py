"""`vestal doctor` as a command: with nothing running, with wrong settings, and as JSON."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from host_agent.doctor import DIAGNOSES

REPO = Path(__file__).resolve().parents[4]
pytestmark = pytest.mark.timeout(300)  # one diagnosis imports all packages in a process of its own


@pytest.fixture
def doctor(home: Path, user: Path, free_port: Callable[[], int]) -> Callable[..., Any]:
    names = ("VESTAL_MLX_PORT", "VESTAL_AGENT_PORT", "VESTAL_ORCHESTRATOR_PORT")
    foreign = ("VESTAL_", "MLX_", "OLLAMA_")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    own = {name: str(free_port()) for name in names}
    own |= {"VESTAL_HOME": str(home), "HOME": str(user), "VESTAL_OLLAMA__MANAGE": "off"}

    def run(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "host_agent.cli.main", "doctor", *arguments]
        return subprocess.run(
            command, env=clean | own | env, cwd=REPO, capture_output=True, text=True, timeout=280
        )

    return run


def test_doctor_with_nothing_running_and_no_docker_finds_no_fault(doctor, home: Path):
    before = sorted(home.iterdir())
    done = doctor()
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("\nNothing is wrong.\n")
    assert done.stderr == "", "progress is for a terminal"
    named = {line[2:].split()[0] for line in done.stdout.splitlines() if line[:1] in ("✓", "·")}
    silent = {"ollama_as_another_user"}  # reports nothing if Ollama is switched off
    assert named >= {diagnosis.name for diagnosis in DIAGNOSES} - silent
    assert sorted(home.iterdir()) == before, "it changes nothing"


def test_doctor_with_invalid_settings_reports_them_and_runs_the_other_diagnoses(doctor, user: Path):
    (user / "bad.yaml").write_text("mlx:\n  prot: 1\n")
    done = doctor("--json", VESTAL_CONFIG=str(user / "bad.yaml"))
    assert done.returncode == 1
    assert done.stderr == ""
    answer = json.loads(done.stdout)
    assert set(answer) == {"findings", "healthy"}
    assert answer["healthy"] is False
    first = answer["findings"][0]
    assert set(first) == {"name", "level", "sentence", "remedy", "evidence"}
    assert (first["name"], first["level"]) == ("configuration", "fault")
    assert "bad.yaml:2: unknown key mlx.prot" in first["sentence"]
    assert {finding["name"] for finding in answer["findings"]} > {"port_in_use", "corrupt_cache"}, (
        "it went on"
    )
