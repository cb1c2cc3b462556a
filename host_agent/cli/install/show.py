"""`vestal install --show`: show which jobs are installed, and their state.

The exit code is 1 if a job has a problem or nothing is installed, else 0.
"""

import argparse
import json
from dataclasses import asdict, dataclass

from host_agent.cli.install import unfinished
from host_agent.service_manager import service_manager
from host_agent.service_manager.jobs import KEPT_ALIVE, JobState
from host_agent.service_manager.service_manager import ServiceManager
from host_agent.service_manager.systemd import Systemd
from host_agent.services.child_environment import REPO
from vestal.config import Config, Home


@dataclass(frozen=True)
class InstalledJob:
    """One installed job. `problem` says in words what is wrong with the job; it is empty if all is well."""

    name: str
    path: str
    state: JobState
    problem: str


def run(options: argparse.Namespace, config: Config) -> int:
    managers = service_manager.managers(config.home)
    jobs = [_inspect(manager, job, config.home) for manager in managers for job in manager.installed_jobs()]
    healthy = bool(jobs) and not any(job.problem for job in jobs)
    if options.json:
        answer = {
            "service_manager": managers[0].name,
            "jobs": [asdict(job) for job in jobs],
            "healthy": healthy,
        }
        print(json.dumps(answer, indent=2))
    else:
        _print(jobs, managers[0])
    return 0 if healthy else 1


def _print(jobs: list[InstalledJob], manager: ServiceManager) -> None:
    for job in jobs:
        print(f"{job.name:8} {job.state.describe()}\n         {job.path}")
        if job.problem:
            print(f"         {job.problem}")
    if not jobs:
        print("Nothing is installed: `vestal install` installs it.")
    elif isinstance(manager, Systemd) and not manager.is_lingering():
        print("Your units end at your logout until you run `sudo loginctl enable-linger $USER`.")


def _inspect(manager: ServiceManager, job: str, home: Home) -> InstalledJob:
    state = manager.state(job)
    return InstalledJob(job, str(manager.paths(job)[0]), state, _problem(manager, job, state, home))


def _problem(manager: ServiceManager, job: str, state: JobState, home: Home) -> str:
    if reason := service_manager.stale_reason(manager, job, REPO):
        return f"{reason}: `vestal install` writes it again"
    if unfinished.exists(home) and not manager.needs_root:
        return "the last `vestal install` was not completed: run it again"
    if not state.loaded:
        return f"{manager.name} has not loaded it: `vestal install` loads it"
    if job in KEPT_ALIVE and state.pid is None:
        return "it does not run: `vestal up` starts it, and `vestal logs agent` shows why it ended"
    return ""
