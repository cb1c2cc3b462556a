"""What launchd or systemd is to start may have moved since it was installed."""

from collections.abc import Iterator

from host_agent.config import Config
from host_agent.doctor.finding import Finding
from host_agent.host import service_manager
from host_agent.host.stale import stale
from host_agent.services.child_environment import REPO


def look(config: Config) -> Iterator[Finding]:
    for manager in service_manager.managers(config.home):
        for name in manager.present():
            if problem := stale(manager, name, REPO):
                sentence = f"The installed job `{name}` ({manager.paths(name)[0]}): {problem}."
                yield Finding("installed_units", "fault", sentence, "`vestal install` writes it anew.")
