"""Diagnose services that end within seconds of their start: show the last lines of their logs, and the
remedy.
"""

import re
import time
from collections.abc import Iterator
from pathlib import Path

from host_agent.agent import single_instance
from host_agent.doctor.evidence import journal_tail, log_files
from host_agent.doctor.finding import Diagnosis, Finding
from host_agent.doctor.services import early_deaths
from host_agent.doctor.services.early_deaths import EarlyDeath
from host_agent.sentences import readable_cause
from host_agent.service_logs import log_path
from host_agent.service_manager import service_manager
from host_agent.service_manager.jobs import AGENT, JobState
from vestal.config import Config

NAME = "dies_at_start"
SINCE_S = 3600.0
CONFIG_EXIT_CODE = 78
# Pairs of a pattern and a remedy. The first pattern that matches the last log lines counts.
REMEDIES: tuple[tuple[re.Pattern[str], str], ...] = (
    (
        re.compile(
            r"ModuleNotFoundError|ImportError|No module named|cannot open shared object|Library not loaded"
        ),
        "A package is missing or broken: run `make up` again (missing_dependency names it).",
    ),
    (re.compile(r"Address already in use|EADDRINUSE"), "Its port is in use: see port_in_use."),
    (re.compile(r"No space left on device"), "The disk is full: see disk_full."),
    (re.compile(r"Permission denied|Read-only file system"), "A file cannot be written: see home."),
    (re.compile(r"unknown key|configuration|vestal\.yaml"), "Correct the settings: see configuration."),
)


def diagnose(config: Config) -> Iterator[Finding]:
    """Yield a fault for each service that ended within seconds of its start in the last hour and has not
    become ready since, and for a host agent that launchd or systemd starts but that does not keep running.

    If there is none, yield one finding `ok`.
    """
    events = journal_tail.events(config.home, early_deaths.EVENTS, time.time() - SINCE_S)
    found = [_check_service(config, death) for death in early_deaths.find(events)]
    found += _check_agent(config)
    yield from found or [Finding(NAME, "ok", "No service ended right after its start.")]


def assess_death(death: EarlyDeath, log: Path, last_lines: str) -> Finding:
    """Return the fault for a service that ended early. `last_lines` are the last lines of its `log`."""
    repeated = f", {death.times} times in a row" if death.times > 1 else ""
    gave_up = "; it is no longer restarted" if death.gave_up else ""
    cause = readable_cause(death.cause).rstrip(".")
    sentence = f"{death.service} ended {death.run_s:.0f} s after its start{repeated}: {cause}{gave_up}."
    default = f"Read {log}, correct the cause, then run `vestal recover --reset`."
    remedy = _remedy_for(f"{death.cause} {last_lines}") or default
    evidence = f"last lines: {last_lines}" if last_lines else f"{log} is empty"
    return Finding(NAME, "fault", sentence, remedy, evidence)


def assess_job(state: JobState, last_lines: str) -> Finding | None:
    """Return the fault for an agent that launchd or systemd starts but that does not keep running.

    Return None if the agent runs, was never started, or ended with success. `last_lines` are the last lines
    of its log.
    """
    if state.pid or not state.exit_code:
        return None
    meaning = " (a mistake in the settings)" if state.exit_code == CONFIG_EXIT_CODE else ""
    sentence = (
        f"The agent does not keep running: exit code {state.exit_code}{meaning} after {state.runs} starts."
    )
    remedy = _remedy_for(last_lines) or "Run `vestal agent` in the foreground: it shows what is wrong."
    return Finding(NAME, "fault", sentence, remedy, f"last lines: {last_lines}" if last_lines else "")


def _remedy_for(last_lines: str) -> str:
    return next((remedy for pattern, remedy in REMEDIES if pattern.search(last_lines)), "")


def _check_service(config: Config, death: EarlyDeath) -> Finding:
    log = log_path(config.home.logs, death.service)
    return assess_death(death, log, log_files.last_lines(log))


def _check_agent(config: Config) -> list[Finding]:
    home = config.home
    if single_instance.running(home):
        return []
    managers = [manager for manager in service_manager.managers(home) if AGENT in manager.installed_jobs()]
    last_lines = log_files.last_lines(home.logs / "agent.log")
    found = [assess_job(manager.state(AGENT), last_lines) for manager in managers]
    return [finding for finding in found if finding]


DIAGNOSIS = Diagnosis(NAME, diagnose)
