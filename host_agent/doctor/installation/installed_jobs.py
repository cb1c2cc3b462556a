"""Diagnose launchd or systemd jobs that start a Python or a checkout which was moved after `vestal
install`.
"""

from collections.abc import Iterator

from host_agent.doctor.finding import Diagnosis, Finding
from host_agent.service_manager import service_manager
from host_agent.services.child_environment import REPO
from vestal.config import Config

NAME = "installed_jobs"


def diagnose(config: Config) -> Iterator[Finding]:
    """Yield a finding for each launchd or systemd job that is installed for this Vestal home: a fault if the
    Python or the checkout that it starts is gone or is not the present one, else `ok`.

    If no job is installed, yield one finding `ok`.
    """
    managers = service_manager.managers(config.home)
    installed = [(manager, job) for manager in managers for job in manager.installed_jobs()]
    if not installed:
        yield Finding(NAME, "ok", "No job is installed (`vestal install` installs them).")
    for manager, job in installed:
        path = str(manager.paths(job)[0])
        if reason := service_manager.stale_reason(manager, job, REPO):
            yield Finding(NAME, "fault", f"{job}: {reason}.", "`vestal install` writes it again.", path)
        else:
            yield Finding(NAME, "ok", f"{job} is installed, and what it starts exists.", "", path)


DIAGNOSIS = Diagnosis(NAME, diagnose)
