"""Diagnose containers that were killed at their memory limit, and processes that the kernel killed for lack
of memory.
"""

import asyncio
import contextlib
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from host_agent.doctor.evidence import journal_tail
from host_agent.doctor.finding import Diagnosis, Finding
from host_agent.doctor.memory import oom_advice
from host_agent.errors import DockerUnavailable
from host_agent.services.docker.docker_api import DockerApi
from vestal.config import Config
from vestal.config.units import format_size
from vestal.platform import commands, kernel_log
from vestal.platform.kernel_log import OomKill
from vestal.platform.macos import jetsam

NAME = oom_advice.NAME
DAY_S = 86_400.0
START_EVENTS = ("child_started", "child_adopted")
CONTAINER_END_EVENTS = ("container_died",)


def diagnose(config: Config) -> Iterator[Finding]:
    """Yield a fault for each of Vestal's containers and processes that was killed for lack of memory,
    according to Docker, or to the agent's journal or the kernel's log of the last day.

    If there is none, yield one finding `ok`.
    """
    since = time.time() - DAY_S
    inspections, docker_bytes, failure = _ask_docker(config)
    found = [f for each in inspections if (f := oom_advice.assess_inspect(each, docker_bytes))]
    already_found = {finding.sentence for finding in found}
    ends = journal_tail.events(config.home, CONTAINER_END_EVENTS, since)
    found += [f for f in oom_advice.assess_events(ends, docker_bytes) if f.sentence not in already_found]
    services = services_by_pid(journal_tail.events(config.home, START_EVENTS, since))
    found += [assess_kill(kill, services[kill.pid]) for kill in _kills(since) if kill.pid in services]
    ok_sentence = "Nothing of Vestal's was killed for memory within a day."
    yield from found or [Finding(NAME, "ok", ok_sentence, "", failure)]


def services_by_pid(start_events: list[dict[str, Any]]) -> dict[int, str]:
    """Return the service that each PID belonged to. `start_events` are the journal's events about started
    processes.
    """
    return {
        int(event["fields"]["pid"]): str(event["component"])
        for event in start_events
        if "pid" in event["fields"]
    }


def assess_kill(kill: OomKill, service: str) -> Finding:
    """Return the fault for a process of `service` that the kernel killed for lack of memory."""
    why = "it exceeded a memory limit of its own" if kill.by_own_limit else "this machine had no memory left"
    at = time.strftime("%H:%M", time.localtime(kill.at))
    held = format_size(kill.held_bytes)
    evidence = f"the kernel, at {at}: killed {kill.name} (PID {kill.pid}), which held {held}"
    remedy = "Set mlx.memory_limit lower, load fewer or smaller models, or close other programs."
    return Finding(NAME, "fault", f"The kernel killed {service}: {why}.", remedy, evidence)


def kills_in_reports(folder: Path, since: float) -> list[OomKill]:
    """Return the kills for lack of memory in macOS's reports that were written since `since` (seconds since
    1970).

    A report that cannot be read is skipped.
    """
    found: list[OomKill] = []
    for path in sorted(folder.glob(jetsam.REPORTS_PATTERN)):
        with contextlib.suppress(OSError):
            if path.stat().st_mtime >= since:
                found += jetsam.oom_kills(path.read_text(errors="replace"))
    return found


def _kills(since: float) -> list[OomKill]:
    if sys.platform == "darwin":
        return kills_in_reports(jetsam.REPORTS_FOLDER, since)
    logged = kernel_log.oom_kills(commands.output(*kernel_log.OOM_KILLS_COMMAND) or "")
    return [kill for kill in logged if kill.at >= since]


def _ask_docker(config: Config) -> tuple[list[dict[str, Any]], int, str]:
    """Return three values: what `docker inspect` returns for each container of this Vestal home, the Docker
    engine's memory in bytes, and an empty text.

    If Docker does not answer, return an empty list, 0, and the reason.
    """
    try:
        return asyncio.run(_inspect_all(config.home.label))
    except DockerUnavailable as error:
        return [], 0, str(error)


async def _inspect_all(project: str) -> tuple[list[dict[str, Any]], int, str]:
    api = DockerApi()
    try:
        return await api.containers(project), await api.memory_bytes(), ""
    finally:
        await api.close()


DIAGNOSIS = Diagnosis(NAME, diagnose)
