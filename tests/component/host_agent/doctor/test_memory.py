"""Kills for memory, by Docker's API, the journal and a Mac's reports; Metal's failures, by logs."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from host_agent.doctor.memory import metal, oom_killed
from host_agent.journal import Journal
from tests.component.host_agent.doctor.conftest import faults, until
from tests.services.docker_command import docker as run_docker
from tests.services.docker_command import python_image
from vestal.config import Config

GIB = 1024**3
RECORDED = Path(__file__).resolve().parents[3] / "recorded"
LABEL = "com.docker.compose"
ALLOCATE_512_MIB = "x = bytearray(512 * 1024 * 1024)"


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


async def test_doctor_reports_a_container_killed_at_its_memory_limit_and_advises_a_higher_limit(
    configure, docker: FakeDocker
):
    (found,) = await diagnosed(configure())
    assert found.level == "fault"
    assert found.sentence == "orchestrator was killed: it reached its limit of 2.0 GiB."
    assert "MEM_LIMIT=3072m" in found.remedy


async def test_doctor_finds_the_memory_kill_of_a_restarted_container_in_the_journal(
    configure, docker: FakeDocker
):
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


async def test_doctor_memory_check_without_docker_is_ok_and_states_that_docker_does_not_answer(configure):
    (found,) = await diagnosed(configure())
    assert found.level == "ok"
    assert "does not answer" in found.evidence


async def test_doctor_does_not_report_a_container_killed_for_memory_two_days_ago(configure):
    config = configure()
    config.home.prepare()
    journal = Journal(config.home.journal_db, wall=lambda: time.time() - 2 * oom_killed.DAY_S)
    journal.record("nightly", "container_died", "over its limit", reason="out_of_memory", limit_bytes=GIB)
    journal.close()
    assert [found.level for found in await diagnosed(config)] == ["ok"]


def test_macos_memory_kills_are_read_from_recent_reports_and_not_from_old_or_unreadable_ones(tmp_path: Path):
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


@pytest.mark.docker
def test_doctor_reports_a_real_docker_container_killed_at_its_memory_limit(
    configure, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("DOCKER_HOST")
    image = python_image()
    config = configure()
    labels = [f"{LABEL}.project={config.home.label}", f"{LABEL}.service=orchestrator"]
    arguments = [word for label in labels for word in ("--label", label)]
    limits = ["--memory", "64m", "--memory-swap", "64m", "--entrypoint", "python3"]
    name = config.home.label
    try:
        run_docker("run", "--name", name, *arguments, *limits, image, "-c", ALLOCATE_512_MIB, check=False)
        (found,) = until(lambda: faults(oom_killed.diagnose(config)), "it is reported")
    finally:
        run_docker("rm", "--force", name, check=False)
    assert "orchestrator was killed: it reached its limit of 64.0 MiB" in found.sentence
    assert "MEM_LIMIT=256m" in found.remedy


def test_doctor_reports_log_lines_about_metal_contention_from_the_last_hour_as_a_fault(config: Config):
    text = (RECORDED / "logs" / "mlx_compiler.log").read_text()
    for then in ("1776188541.2", "1776188545.9"):
        text = text.replace(then, f"{time.time() - 60:.1f}")
    (config.home.logs / "engine.log").write_text(text)
    (found,) = metal.CONTENTION.diagnose(config)
    assert found.level == "fault"
    assert str(config.home.logs / "engine.log") in found.evidence


def test_doctor_reports_metal_memory_errors_in_ollamas_log_only_if_they_are_recent(configure, user: Path):
    config = configure(VESTAL_OLLAMA__MANAGE="watch")
    log = user / ".ollama" / "logs" / "server.log"
    log.parent.mkdir(parents=True)
    text = (RECORDED / "logs" / "ollama_metal_memory.log").read_text()
    log.write_text(text)
    assert faults(metal.OUT_OF_MEMORY.diagnose(config)) == [], "the lines are months old"
    log.write_text(text.replace("2026-04-14T14:42", time.strftime("%Y-%m-%dT%H:%M")).replace("-03:00", ""))
    (found,) = faults(metal.OUT_OF_MEMORY.diagnose(config))
    assert "server.log" in found.evidence
    assert "smaller model" in found.remedy
