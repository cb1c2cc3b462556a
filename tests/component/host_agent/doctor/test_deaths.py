"""What died at its start, for want of a package or of memory: real processes, a journal, Docker's API."""

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


def of_agent(agent: AgentUnderTest) -> Config:
    """The settings that the agent of this test has."""
    return load(agent.env, agent.home)


def test_gateway_that_ends_at_once_is_told_with_its_last_words(agent: AgentUnderTest):
    (agent.home / "fake_gateway.json").write_text(json.dumps({"exit_code": 78}))
    agent.process = agent.launch()
    agent.until(lambda: agent.status()["services"]["mlx_server"]["state"] == "failed", "it was given up")
    (found,) = faults(dies_at_start.look(of_agent(agent)))
    assert "mlx_server ended" in found.sentence and "it was given up" in found.sentence
    assert "no such model" in found.evidence
    assert "configuration" in found.remedy
    (given_up,) = faults(unhealthy.look(of_agent(agent)))
    assert given_up.sentence == "mlx_server was given up (failed)"
    assert "no such model" in given_up.evidence
    assert "recover --reset" in given_up.remedy


def test_gateway_that_came_up_is_no_fault(agent: AgentUnderTest):
    agent.start()
    config = of_agent(agent)
    assert faults(dies_at_start.look(config)) == []
    assert [found.level for found in unhealthy.look(config)] == ["ok"]


def test_gateway_that_was_stopped_by_hand_is_only_noted(agent: AgentUnderTest):
    agent.start()
    agent.ask("/services/mlx_server/stop", {})
    found = agent.until(
        lambda: [f for f in unhealthy.look(of_agent(agent)) if f.level == "note"], "it was stopped"
    )
    assert "mlx_server was stopped by hand" in found[0].sentence


def test_home_without_an_agent_is_no_fault(configure):
    assert [found.level for found in unhealthy.look(configure())] == ["note"]


def test_agent_that_is_suspended_does_not_tell_its_state(agent: AgentUnderTest, monkeypatch):
    monkeypatch.setattr(agent_client, "TIMEOUT_S", 0.3)
    agent.start()
    assert agent.process
    agent.process.send_signal(signal.SIGSTOP)
    config = of_agent(agent)
    (found,) = unhealthy.look(config)
    (agent.home / "token").unlink()
    (refused,) = unhealthy.look(config)
    agent.process.send_signal(signal.SIGCONT)
    assert found.level == "note", "that is a matter of `hung`"
    assert "does not tell its state" in found.sentence
    assert refused.level == "fault"
    assert "There is no token" in refused.evidence


def test_journal_is_read_beside_a_dead_agent_too(agent: AgentUnderTest):
    (agent.home / "fake_gateway.json").write_text(json.dumps({"exit_code": 78}))
    agent.process = agent.launch()
    agent.until(lambda: agent.status()["services"]["mlx_server"]["state"] == "failed", "it was given up")
    agent.kill()
    agent.process = None
    assert len(faults(dies_at_start.look(of_agent(agent)))) == 1


def test_processes_of_a_living_agent_are_no_orphans(agent: AgentUnderTest):
    agent.start()
    assert faults(orphans.look(of_agent(agent))) == []


@pytest.fixture(scope="module")
def bare_python(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The interpreter of an environment in which nothing is installed."""
    folder = tmp_path_factory.mktemp("venv")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True, timeout=120)
    return str(folder / "bin" / "python")


def test_package_that_is_missing_is_named(configure, bare_python: str):
    found = faults(missing_dependency.look(configure(), bare_python))
    assert [finding.sentence for finding in found] == [
        f"{name} cannot be imported" for name in missing_dependency.PACKAGES
    ]
    assert "No module named 'mlx'" in found[0].evidence
    assert "make up" in found[0].remedy


def test_package_that_ends_its_process_is_told_apart(configure, bare_python: str):
    (site,) = (Path(bare_python).parents[1] / "lib").glob("python*/site-packages")
    (site / "uvicorn.py").write_text("import os; os.abort()")
    found = faults(missing_dependency.look(configure(), bare_python))
    (site / "uvicorn.py").unlink()
    assert f"ended with exit code {-signal.SIGABRT}" in found[-1].sentence
    assert "delete .venv" in found[-1].remedy


def container(**state: Any) -> dict[str, Any]:
    ended = {"Status": "exited", "Running": False, "OOMKilled": True, "ExitCode": 137}
    return {
        "Id": "891758fb95b7c0ffee",
        "Config": {"Labels": {"com.docker.compose.service": "orchestrator"}},
        "HostConfig": {"Memory": 2 * GIB},
        "State": ended | state,
    }


class FakeDocker:
    """One container, and an engine with 8 GiB."""

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


async def looked(config: Config) -> list[Any]:
    return await asyncio.to_thread(lambda: list(oom_killed.look(config)))


async def test_container_over_its_limit_is_told_with_a_limit_that_would_do(configure, docker: FakeDocker):
    (found,) = await looked(configure())
    assert found.level == "fault"
    assert found.sentence == "orchestrator was killed: it reached its limit of 2.0 GiB"
    assert "MEM_LIMIT=3072m" in found.remedy


async def test_container_that_was_started_again_is_known_from_the_journal(configure, docker: FakeDocker):
    config = configure()
    docker.inspect = container(Running=True, OOMKilled=False, Status="running")
    assert [found.level for found in await looked(config)] == ["ok"]
    config.home.prepare()
    journal = Journal(config.home.journal_db)
    told = {"reason": "out_of_memory", "limit_bytes": 2 * GIB}
    journal.record("orchestrator", "container_died", "killed by the kernel: over its limit", **told)
    (found,) = await looked(config)
    journal.close()
    assert found.level == "fault"
    assert "killed by the kernel" in found.evidence


async def test_without_a_docker_engine_that_is_told_and_all_is_well(configure):
    (found,) = await looked(configure())
    assert found.level == "ok"
    assert "does not answer" in found.evidence


async def test_old_deaths_are_no_news(configure):
    config = configure()
    config.home.prepare()
    journal = Journal(config.home.journal_db, wall=lambda: time.time() - 2 * oom_killed.DAY_S)
    journal.record("nightly", "container_died", "over its limit", reason="out_of_memory", limit_bytes=GIB)
    journal.close()
    assert [found.level for found in await looked(config)] == ["ok"]


def test_reports_of_a_mac_are_read_where_they_are_new_and_may_be_read(tmp_path: Path):
    text = (RECORDED / "macos" / "jetsam.ips").read_text()
    for name, age_s in (
        ("JetsamEvent-2026-04-10-050526.ips", 0),
        ("JetsamEvent-2026-01-01-000000.ips", 9999),
    ):
        (tmp_path / name).write_text(text)
        os.utime(tmp_path / name, (time.time() - age_s,) * 2)
    (tmp_path / "JetsamEvent-unreadable.ips").mkdir()
    assert [kill.pid for kill in oom_killed.reported(tmp_path, time.time() - 60)] == [4211]
    assert oom_killed.reported(tmp_path / "none", 0.0) == []


LABEL = "com.docker.compose"
EATS = "x = bytearray(512 * 1024 * 1024)"


@pytest.mark.docker
def test_container_that_a_real_engine_killed_is_recognized(configure, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("DOCKER_HOST")
    image = _image()
    config = configure()
    labels = [f"{LABEL}.project={config.home.label}", f"{LABEL}.service=orchestrator"]
    arguments = [word for label in labels for word in ("--label", label)]
    limits = ["--memory", "64m", "--memory-swap", "64m", "--entrypoint", "python3"]
    name = config.home.label
    try:
        _docker("run", "--name", name, *arguments, *limits, image, "-c", EATS, check=False)
        (found,) = until(lambda: faults(oom_killed.look(config)), "it is told")
    finally:
        _docker("rm", "--force", name, check=False)
    assert "orchestrator was killed: it reached its limit of 64 MiB" in found.sentence
    assert "MEM_LIMIT=256m" in found.remedy


def _image() -> str:
    """An image with Python that this engine has; skipped where there is no engine, or none such."""
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
