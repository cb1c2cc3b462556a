"""What launchd's and systemd's units have in common."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

AGENT, RECOVER, SERVER = "agent", "recover", "server"
WITH_AGENT, SERVER_ALONE = (AGENT, RECOVER), (SERVER,)
ALL = (AGENT, RECOVER, SERVER)
KEPT_ALIVE = (AGENT, SERVER)
ARGUMENTS = {AGENT: ("agent", "--managed"), RECOVER: ("recover", "--once"), SERVER: ("server",)}


@dataclass(frozen=True)
class Unit:
    """A file of the service manager's; `name` says to which job it belongs (recover has two with systemd)."""

    name: str
    path: Path
    text: str


@dataclass(frozen=True)
class JobSettings:
    """What units are made from. `environment` has what the job must be told, PATH included, and no secret."""

    environment: Mapping[str, str]
    checkout: Path
    python: str
    stop_within_s: int  # longer than the ordered stop
    recover_each_s: int

    def program(self, name: str) -> list[str]:
        """The command of a job, with the full path of its Python."""
        return [self.python, "-m", "host_agent.cli.main", *ARGUMENTS[name]]


@dataclass(frozen=True)
class Written:
    """What an installed unit starts: it may be gone since."""

    python: Path
    checkout: Path
