"""A service ends within seconds of its start: its last log lines, and what they mean."""

import re
import time
from collections.abc import Iterator
from pathlib import Path

from host_agent.agent import single_instance
from host_agent.doctor.evidence import journal_tail, log_files
from host_agent.doctor.finding import Finding
from host_agent.doctor.services import early_deaths
from host_agent.doctor.services.early_deaths import EarlyDeath
from host_agent.journal import readable_cause
from host_agent.service_manager import service_manager
from host_agent.service_manager.jobs import AGENT, JobState
from vestal.config import Config

NAME = "dies_at_start"
SINCE_S = 3600.0
LOGS = {"mlx_engine": "engine.log"}
CONFIG_EXIT_CODE = 78
# What the last words say → what helps. The first that matches counts.
HINTS: tuple[tuple[re.Pattern[str], str], ...] = (
    (
        re.compile(
            r"ModuleNotFoundError|ImportError|No module named|cannot open shared object|Library not loaded"
        ),
        "a package is missing or broken: run `make up` again (missing_dependency names it)",
    ),
    (re.compile(r"Address already in use|EADDRINUSE"), "its port is taken: see port_in_use"),
    (re.compile(r"No space left on device"), "the disk is full: see disk_full"),
    (re.compile(r"Permission denied|Read-only file system"), "a file may not be written: see home"),
    (re.compile(r"unknown key|configuration|vestal\.yaml"), "correct the settings: see configuration"),
)


def look(config: Config) -> Iterator[Finding]:
    """In the journal of the last hour, and in what launchd or systemd tells of the agent."""
    events = journal_tail.events(config.home, early_deaths.EVENTS, time.time() - SINCE_S)
    found = [_of_child(config, death) for death in early_deaths.find(events)]
    found += _of_agent(config)
    yield from found or [Finding(NAME, "ok", "nothing of ours has ended right after its start")]


def hint(said: str) -> str:
    """The remedy for what a program said last."""
    return next((remedy for pattern, remedy in HINTS if pattern.search(said)), "")


def judge(death: EarlyDeath, log: Path, said: str) -> Finding:
    often = f", {death.times} times in a row" if death.times > 1 else ""
    gave_up = "; it was given up" if death.gave_up else ""
    cause = readable_cause(death.cause)
    sentence = f"{death.service} ended {death.run_s:.0f} s after its start{often}: {cause}{gave_up}"
    remedy = hint(f"{death.cause} {said}") or f"read {log}, mend what it says, then `vestal recover --reset`"
    return Finding(NAME, "fault", sentence, remedy, f"last lines: {said}" if said else f"{log} is empty")


def judge_job(state: JobState, said: str) -> Finding | None:
    """The agent under its service manager; None where it runs, or was never started."""
    if state.pid or not state.exit_code:
        return None
    meaning = " (a mistake in the settings)" if state.exit_code == CONFIG_EXIT_CODE else ""
    sentence = f"the agent does not stay up: exit code {state.exit_code}{meaning} after {state.runs} starts"
    default = "`vestal agent` in the foreground shows what is wrong"
    return Finding(NAME, "fault", sentence, hint(said) or default, f"last lines: {said}" if said else "")


def _of_child(config: Config, death: EarlyDeath) -> Finding:
    log = config.home.logs / LOGS.get(death.service, f"{death.service}.log")
    return judge(death, log, log_files.last_words(log))


def _of_agent(config: Config) -> list[Finding]:
    home = config.home
    if single_instance.running(home):
        return []
    managers = [manager for manager in service_manager.managers(home) if AGENT in manager.installed_jobs()]
    said = log_files.last_words(home.logs / "agent.log")
    found = [judge_job(manager.state(AGENT), said) for manager in managers]
    return [finding for finding in found if finding]
