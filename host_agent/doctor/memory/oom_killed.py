"""Killed for memory: a container over its limit, or our engine by the kernel of this host."""

import asyncio
import contextlib
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from host_agent.doctor.evidence import journal_tail
from host_agent.doctor.finding import Finding
from host_agent.doctor.memory import oom_advice
from host_agent.errors import DockerUnavailable
from host_agent.services.docker.docker_api import DockerApi
from host_agent.services.docker.exit_cause import gibibytes
from vestal.config import Config
from vestal.platform import commands, kernel_log
from vestal.platform.kernel_log import OomKill
from vestal.platform.macos import jetsam

NAME = oom_advice.NAME
DAY_S = 86_400.0
STARTED = ("child_started", "child_adopted")
DIED = ("container_died",)


def look(config: Config) -> Iterator[Finding]:
    """In Docker's records, the agent's journal, and what the kernel tells, of the last day."""
    since = time.time() - DAY_S
    records, engine_bytes, why = _docker(config)
    found = [f for record in records if (f := oom_advice.from_record(record, engine_bytes))]
    told = {f.sentence for f in found}
    deaths = journal_tail.events(config.home, DIED, since)
    found += [f for f in oom_advice.from_journal(deaths, engine_bytes) if f.sentence not in told]
    ours = pids(journal_tail.events(config.home, STARTED, since))
    found += [by_kernel(kill, ours[kill.pid]) for kill in _kills(since) if kill.pid in ours]
    yield from found or [Finding(NAME, "ok", "nothing of ours was killed for memory within a day", "", why)]


def pids(events: list[dict[str, Any]]) -> dict[int, str]:
    """Which service had which PID."""
    return {
        int(event["fields"]["pid"]): str(event["component"]) for event in events if "pid" in event["fields"]
    }


def by_kernel(kill: OomKill, service: str) -> Finding:
    """Not a container: the host itself had no memory left, or a group's limit was reached."""
    why = "over a memory limit of its own" if kill.by_own_limit else "this machine had no memory left"
    at = time.strftime("%H:%M", time.localtime(kill.at))
    evidence = (
        f"the kernel, at {at}: killed {kill.name} (PID {kill.pid}), which held {gibibytes(kill.held_bytes)}"
    )
    remedy = "set mlx.memory_limit lower, load fewer or smaller models, or close other programs"
    return Finding(NAME, "fault", f"the kernel killed {service}: {why}", remedy, evidence)


def _kills(since: float) -> list[OomKill]:
    if sys.platform == "darwin":
        return reported(jetsam.REPORTS_FOLDER, since)
    return kernel_log.oom_kills(commands.output(*kernel_log.OOM_KILLS_COMMAND) or "")


def reported(folder: Path, since: float) -> list[OomKill]:
    """Those in a Mac's reports that were written since then; one that may not be read tells nothing."""
    found: list[OomKill] = []
    for path in sorted(folder.glob(jetsam.REPORTS_PATTERN)):
        with contextlib.suppress(OSError):
            if path.stat().st_mtime >= since:
                found += jetsam.oom_kills(path.read_text(errors="replace"))
    return found


def _docker(config: Config) -> tuple[list[dict[str, Any]], int, str]:
    """The records of this home's containers, the engine's memory, and why there are none."""
    try:
        return asyncio.run(_asked(config.home.label))
    except DockerUnavailable as error:
        return [], 0, str(error)


async def _asked(project: str) -> tuple[list[dict[str, Any]], int, str]:
    api = DockerApi()
    try:
        return await api.containers(project), await api.memory_bytes(), ""
    finally:
        await api.close()
