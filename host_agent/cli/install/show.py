"""`vestal install --show`: what is installed, and how it runs. Exit code 0 all well, 1 not, or nothing."""

import argparse
import json
from dataclasses import asdict, dataclass

from host_agent.service_manager import service_manager
from host_agent.service_manager.job_state import JobState, in_words
from host_agent.service_manager.service_manager import ServiceManager
from host_agent.service_manager.stale_jobs import stale
from host_agent.service_manager.systemd import Systemd
from host_agent.service_manager.unit import KEPT_ALIVE
from host_agent.services.child_environment import REPO
from vestal.config import Config


@dataclass(frozen=True)
class Job:
    """One line of the answer."""

    name: str
    path: str
    state: JobState
    problem: str


def run(options: argparse.Namespace, config: Config) -> int:
    managers = service_manager.managers(config.home)
    jobs = [_look(manager, name) for manager in managers for name in manager.present()]
    well = bool(jobs) and not any(job.problem for job in jobs)
    if options.json:
        told = {"service_manager": managers[0].name, "jobs": [asdict(job) for job in jobs], "healthy": well}
        print(json.dumps(told, indent=2))
        return 0 if well else 1
    for job in jobs:
        print(f"{job.name:8} {in_words(job.state)}\n         {job.path}")
        if job.problem:
            print(f"         {job.problem}")
    if not jobs:
        print("Nothing is installed: `vestal install` does it.")
    elif isinstance(managers[0], Systemd) and not managers[0].lingers():
        print("Your units end at your logout, until `sudo loginctl enable-linger $USER` is run.")
    return 0 if well else 1


def _look(manager: ServiceManager, name: str) -> Job:
    state = manager.state(name)
    return Job(name, str(manager.paths(name)[0]), state, _problem(manager, name, state))


def _problem(manager: ServiceManager, name: str, state: JobState) -> str:
    if wrong := stale(manager, name, REPO):
        return f"{wrong}: `vestal install` writes it anew"
    if not state.loaded:
        return f"{manager.name} has not loaded it: `vestal install` does"
    if name in KEPT_ALIVE and state.pid is None:
        return "it does not run: `vestal up` starts it, and `vestal logs agent` tells why it ended"
    return ""
