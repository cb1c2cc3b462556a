"""What launchd or systemd is to start may have moved since it was installed."""

from collections.abc import Iterator

from host_agent.doctor.finding import Finding
from host_agent.service_manager import service_manager
from host_agent.services.child_environment import REPO
from vestal.config import Config

NAME = "installed_jobs"


def look(config: Config) -> Iterator[Finding]:
    managers = service_manager.managers(config.home)
    found = [(manager, name) for manager in managers for name in manager.installed_jobs()]
    if not found:
        yield Finding(NAME, "ok", "no job is installed (`vestal install` would)")
    for manager, name in found:
        path = manager.paths(name)[0]
        if problem := service_manager.stale_reason(manager, name, REPO):
            yield Finding(NAME, "fault", f"{name}: {problem}", "`vestal install` writes it anew", str(path))
        else:
            yield Finding(NAME, "ok", f"{name} is installed, and what it starts is there", "", str(path))
