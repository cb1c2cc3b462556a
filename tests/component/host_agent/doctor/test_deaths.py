"""Services that die at start, missing packages, kills for memory: real processes, a journal, Docker's API."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from host_agent import agent_client
from host_agent.doctor.installation import missing_dependency
from host_agent.doctor.memory import oom_killed
from host_agent.doctor.services import dies_at_start, orphans, unhealthy
from host_agent.journal import Journal
from tests.component.host_agent.conftest import AgentUnderTest
from tests.component.host_agent.doctor.conftest import faults, until
from vestal.config import Config, load

GIB = 1024**3
RECORDED = Path(__file__).resolve().parents[3] / "recorded"


def config_of(agent: AgentUnderTest) -> Config:
    """Return the settings of this test's agent."""
    return load(agent.env, agent.home)


def test_gateway_that_ends_at_start_is_reported_with_its_last_lines(agent: AgentUnderTest):
    (agent.home / "fake_gateway.json").write_text(json.dumps({"exit_code": 78}))
    agent.process = agent.launch()
    agent.until(lambda: agent.status()["services"]["mlx_server"]["state"] == "failed", "it has failed")
    (found,) = faults(dies_at_start.diagnose(config_of(agent)))
    assert "mlx_server ended" in found.sentence and "it is no longer restarted" in found.sentence
    assert "no such model" in found.evidence
    assert "configuration" in found.remedy
    (failed,) = faults(unhealthy.diagnose(config_of(agent)))
    assert failed.sentence == "mlx_server is no longer restarted (failed)."
    assert "no such model" in failed.evidence
    assert "recover --reset" in failed.remedy


def test_gateway_that_became_ready_is_no_fault(agent: AgentUnderTest):
    agent.start()
    config = config_of(agent)
    assert faults(dies_at_start.diagnose(config)) == []
    assert [found.level for found in unhealthy.diagnose(config)] == ["ok"]


def test_gateway_that_was_stopped_by_hand_is_a_note(agent: AgentUnderTest):
    agent.start()
    agent.ask("/services/mlx_server/stop", {})
    found = agent.until(
        lambda: [f for f in unhealthy.diagnose(config_of(agent)) if f.level == "note"], "it was stopped"
    )
    assert "mlx_server was stopped by hand" in found[0].sentence


def test_home_without_an_agent_is_a_note(configure):
    assert [found.level for found in unhealthy.diagnose(configure())] == ["note"]


def test_agent_that_does_not_report_its_state_is_a_note_and_one_that_refuses_a_fault(
    agent: AgentUnderTest, monkeypatch
):
    monkeypatch.setattr(agent_client, "TIMEOUT_S", 0.3)
    agent.start()
    assert agent.process
    agent.process.send_signal(signal.SIGSTOP)
    config = config_of(agent)
    (found,) = unhealthy.diagnose(config)
    (agent.home / "token").unlink()
    (refused,) = unhealthy.diagnose(config)
    agent.process.send_signal(signal.SIGCONT)
    assert found.level == "note", "the diagnosis `hung` reports it as a fault"
    assert "does not report its state" in found.sentence
    assert refused.level == "fault"
    assert "There is no token" in refused.evidence


def test_journal_of_a_dead_agent_is_read(agent: AgentUnderTest):
    (agent.home / "fake_gateway.json").write_text(json.dumps({"exit_code": 78}))
    agent.process = agent.launch()
    agent.until(lambda: agent.status()["services"]["mlx_server"]["state"] == "failed", "it has failed")
    agent.kill()
    agent.process = None
    assert len(faults(dies_at_start.diagnose(config_of(agent)))) == 1


def test_processes_of_a_running_agent_are_no_orphans(agent: AgentUnderTest):
    agent.start()
    assert faults(orphans.diagnose(config_of(agent))) == []


@pytest.fixture(scope="module")
def bare_python(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The interpreter of an environment in which nothing is installed."""
    folder = tmp_path_factory.mktemp("venv")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True, timeout=120)
    return str(folder / "bin" / "python")


def test_missing_packages_are_named(configure, bare_python: str):
    found = faults(missing_dependency.diagnose(configure(), bare_python))
    assert [finding.sentence for finding in found] == [
        f"{name} cannot be imported." for name in missing_dependency.PACKAGES
    ]
    assert "No module named 'mlx'" in found[0].evidence
    assert "make up" in found[0].remedy


def test_package_that_aborts_its_process_is_reported_by_exit_code(configure, bare_python: str):
    (site,) = (Path(bare_python).parents[1] / "lib").glob("python*/site-packages")
    (site / "uvicorn.py").write_text("import os; os.abort()")
    found = faults(missing_dependency.diagnose(configure(), bare_python))
    (site / "uvicorn.py").unlink()
    assert f"ended with exit code {-signal.SIGABRT}" in found[-1].sentence
    assert "Delete .venv" in found[-1].remedy


def container(**state: Any) -> dict[str, Any]:
    ended = {"Status": "exited", "Running": False, "OOMKilled": True, "ExitCode": 137}
    return {
        "Id": "891758fb95b7c0ffee",
        "Config": {"Labels": {"com.docker.compose.service": "orchestrator"}},
        "HostConfig": {"Memory": 2 * GIB},
        "State": ended | state,
    }


class FakeDocker:
    """A Docker engine with 8 GiB of memory and one container."""

    def __init__(self) -> None:
        self.inspect = container()
        self.silent = asyncio.Event()

    def app(self) -> web.Application:
        app = web.Application()
        for path, answer in {
            "/version": lambda: {"ApiVersion": "1.41"},
            "/v1.41/containers/json": lambda: [{"Id": "1"}],
            "/v1.41/containers/1/json": lambda: self.inspect,
            "/v1.41/info": lambda: {"MemTotal": 8 * GIB},
        }.items():
            app.router.add_get(path, self._answering(answer))
        return app

    @staticmethod
    def _answering(answer: Callable[[], Any]) -> Callable[[web.Request], Any]:
        async def handle(request: web.Request) -> web.Response:
            return web.json_response(answer())

        return handle


@pytest.fixture
async def docker(home: Path, configure, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[FakeDocker]:
    made = FakeDocker()
    runner = web.AppRunner(made.app(), shutdown_timeout=0.1)
    await runner.setup()
    await web.UnixSite(runner, str(home / "docker.sock")).start()
    monkeypatch.setenv("DOCKER_HOST", f"unix://{home / 'docker.sock'}")
    yield made
    await runner.cleanup()


async def diagnosed(config: Config) -> list[Any]:
    return await asyncio.to_thread(lambda: list(oom_killed.diagnose(config)))


async def test_container_killed_at_its_limit_is_a_fault_with_an_advised_limit(configure, docker: FakeDocker):
    (found,) = await diagnosed(configure())
    assert found.level == "fault"
    assert found.sentence == "orchestrator was killed: it reached its limit of 2.0 GiB."
    assert "MEM_LIMIT=3072m" in found.remedy


async def test_container_killed_and_restarted_is_found_in_the_journal(configure, docker: FakeDocker):
    config = configure()
    docker.inspect = container(Running=True, OOMKilled=False, Status="running")
    assert [found.level for found in await diagnosed(config)] == ["ok"]
    config.home.prepare()
    journal = Journal(config.home.journal_db)
    fields = {"reason": "out_of_memory", "limit_bytes": 2 * GIB}
    journal.record("orchestrator", "container_died", "killed by the kernel: over its limit", **fields)
    (found,) = await diagnosed(config)
    journal.close()
    assert found.level == "fault"
    assert "killed by the kernel" in found.evidence


async def test_missing_docker_engine_is_evidence_and_no_fault(configure):
    (found,) = await diagnosed(configure())
    assert found.level == "ok"
    assert "does not answer" in found.evidence


async def test_container_killed_two_days_ago_is_not_reported(configure):
    config = configure()
    config.home.prepare()
    journal = Journal(config.home.journal_db, wall=lambda: time.time() - 2 * oom_killed.DAY_S)
    journal.record("nightly", "container_died", "over its limit", reason="out_of_memory", limit_bytes=GIB)
    journal.close()
    assert [found.level for found in await diagnosed(config)] == ["ok"]


def test_kills_in_reports_skips_old_and_unreadable_reports(tmp_path: Path):
    text = (RECORDED / "macos" / "jetsam.ips").read_text()
    for name, age_s in (
        ("JetsamEvent-2026-04-10-050526.ips", 0),
        ("JetsamEvent-2026-01-01-000000.ips", 9999),
    ):
        (tmp_path / name).write_text(text)
        os.utime(tmp_path / name, (time.time() - age_s,) * 2)
    (tmp_path / "JetsamEvent-unreadable.ips").mkdir()
    assert [kill.pid for kill in oom_killed.kills_in_reports(tmp_path, time.time() - 60)] == [4211]
    assert oom_killed.kills_in_reports(tmp_path / "none", 0.0) == []


LABEL = "com.docker.compose"
ALLOCATE_512_MIB = "x = bytearray(512 * 1024 * 1024)"


@pytest.mark.docker
def test_container_killed_by_a_real_docker_engine_is_recognized(configure, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("DOCKER_HOST")
    image = _image()
    config = configure()
    labels = [f"{LABEL}.project={config.home.label}", f"{LABEL}.service=orchestrator"]
    arguments = [word for label in labels for word in ("--label", label)]
    limits = ["--memory", "64m", "--memory-swap", "64m", "--entrypoint", "python3"]
    name = config.home.label
    try:
        _docker("run", "--name", name, *arguments, *limits, image, "-c", ALLOCATE_512_MIB, check=False)
        (found,) = until(lambda: faults(oom_killed.diagnose(config)), "it is reported")
    finally:
        _docker("rm", "--force", name, check=False)
    assert "orchestrator was killed: it reached its limit of 64 MiB" in found.sentence
    assert "MEM_LIMIT=256m" in found.remedy


def _image() -> str:
    """Return an image with Python of this Docker engine; skip where there is no engine or no such image."""
    try:
        images = _docker("images", "--format", "{{.Repository}}:{{.Tag}}").split()
    except (OSError, subprocess.SubprocessError):
        assert "VESTAL_TEST_REQUIRE_DOCKER" not in os.environ, "a Docker engine is required here"
        pytest.skip("no Docker engine answers")
    wanted = os.environ.get("VESTAL_PYTHON_IMAGE") or next((name for name in images if "python" in name), "")
    if not wanted:
        pytest.skip("the Docker engine has no image with Python")
    return wanted


def _docker(*arguments: str, check: bool = True) -> str:
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, timeout=60, check=check)
    return done.stdout
