"""`vestal up`, `status` and `down` where something is wrong or nothing runs: exit codes, and one sentence."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from unittest.mock import Mock

import pytest

from host_agent.cli.run import up
from host_agent.cli.run.progress import Progress
from host_agent.services.orchestrator import mode
from tests.component.host_agent.cli.conftest import sentence
from vestal.config import load

pytestmark = pytest.mark.timeout(300)  # commands run one after the other, among them the slow `vestal doctor`


def test_status_with_nothing_running_exits_with_2(vestal):
    done = vestal("status")
    assert done.returncode == 2
    assert "vestal up" in done.stdout
    assert json.loads(vestal("status", "--json").stdout)["healthy"] is False


def test_up_with_an_unknown_setting_prints_one_line_and_exits_with_78(vestal, home: Path):
    (home / "bad.yaml").write_text("mlx:\n  prot: 1\n")
    done = vestal("up", VESTAL_CONFIG=str(home / "bad.yaml"))
    assert done.returncode == 78
    assert "bad.yaml:2: unknown key mlx.prot; did you mean port?" in sentence(done)
    assert not (home / "run").exists(), "nothing is written"


def test_up_with_a_port_in_use_names_the_process_and_starts_nothing(vestal, home: Path):
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        held.listen()
        port = held.getsockname()[1]
        done = vestal("up", VESTAL_MLX_PORT=str(port))
        found = json.loads(vestal("doctor", "--json", VESTAL_MLX_PORT=str(port)).stdout)
    assert done.returncode == 75
    assert f"Port {port} is held by" in sentence(done)
    assert f"(PID {os.getpid()}" in sentence(done)
    assert "VESTAL_MLX_PORT" in sentence(done)
    assert list((home / "run").glob("*.json")) == []
    faults = [finding for finding in found["findings"] if finding["level"] == "fault"]
    assert [fault["name"] for fault in faults] == ["port_in_use"]
    assert "kill" in faults[0]["remedy"]


def test_up_with_an_unknown_model_names_it_and_starts_nothing(vestal, home: Path):
    done = vestal("up", MLX_PRELOAD_MODELS="no-such-model")
    assert done.returncode == 78
    assert "no-such-model" in sentence(done)
    assert "Nothing was started" in sentence(done)
    assert list((home / "run").glob("*.json")) == []


def test_up_reports_all_faults_at_once_each_with_its_remedy(vestal, home: Path):
    """Earlier, `up` reported one fault at a time, so a person found the next one only after correcting the
    first.
    """
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        held.listen()
        done = vestal(
            "up",
            VESTAL_MLX_PORT=str(held.getsockname()[1]),
            MLX_PRELOAD_MODELS="no-such-model,mlx-community/Qwen3-4B-4bit",
            HF_ENDPOINT="http://127.0.0.1:1",
        )
    first, *rest = done.stderr.splitlines()
    assert (done.returncode, first) == (78, "vestal: Nothing was started; 3 things are wrong:")
    for words in ("no-such-model", "127.0.0.1:1, which does not answer", "set VESTAL_MLX_PORT"):
        assert [words in line for line in rest].count(True) == 1, done.stderr
    assert not home.exists() or list(home.iterdir()) == [], "nothing is written"


def test_up_and_doctor_name_the_line_of_a_mistake_in_the_agents_file(vestal, home: Path):
    """Earlier, the orchestrator exited with 78 again and again, and no command said why."""
    broken = home / "agents.yaml"
    broken.write_text("agents:\n  reader:\n    promt: Read.\n")
    named = f"{broken}:3: agents.reader.promt is an unknown key"
    done = vestal("up", VESTAL_ORCHESTRATOR__AGENTS=str(broken))
    assert done.returncode == 78
    assert named in sentence(done)
    assert not (home / "run").exists(), "nothing is written"
    found = json.loads(vestal("doctor", "--json", VESTAL_ORCHESTRATOR__AGENTS=str(broken)).stdout)
    (fault,) = [finding for finding in found["findings"] if finding["name"] == "configuration"]
    assert (fault["level"], named in fault["sentence"]) == ("fault", True)


def test_down_with_nothing_running_succeeds(vestal):
    done = vestal("down")
    assert (done.returncode, done.stdout.strip()) == (0, "nothing was running")


def test_up_with_a_home_folder_that_cannot_be_created_prints_one_sentence_and_exits_with_74(
    vestal, home: Path
):
    (home / "file").write_text("")
    done = vestal("up", VESTAL_HOME=str(home / "file" / "below"))
    assert done.returncode == 74
    assert str(home / "file") in sentence(done)


@pytest.mark.parametrize("new_mode", ["native", "off"])
def test_up_removes_the_containers_after_a_change_to_an_orchestrator_mode_without_containers(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], new_mode: str
):
    """Earlier, nobody stopped them: they ran on, and held the port of the native orchestrator."""
    docker = home / "bin" / "docker"
    docker.parent.mkdir()
    docker.write_text(f'#!/bin/sh\necho "$@" >> {home}/calls\n')
    docker.chmod(0o700)
    monkeypatch.setenv("PATH", str(docker.parent), prepend=os.pathsep)
    monkeypatch.setattr(up.background_agent, "ensure_running", lambda config: "already running")
    monkeypatch.setattr(up, "replace_outdated", lambda config, progress: None)
    config = load({"HOME": str(home), "VESTAL_HOME": str(home), "VESTAL_ORCHESTRATOR__MODE": new_mode}, home)
    mode.remember_containers(config)
    client = Mock()
    client.get.return_value = {"services": {"docker": {"orchestrator_mode": new_mode, "why": "it is set"}}}
    up.start_services(config, client, Progress())
    assert " down " in (home / "calls").read_text()
    assert "stopped and removed" in capsys.readouterr().out
    assert not mode.has_containers(config)
