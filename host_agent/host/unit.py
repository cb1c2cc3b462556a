"""What launchd's and systemd's units have in common."""

import sys
from dataclasses import dataclass
from pathlib import Path

RECOVER_EACH_S = 300
STOP_WITHIN_S = 120  # longer than the ordered stop: drain, six stages, orchestrators
AGENT, RECOVER = "agent", "recover"


@dataclass(frozen=True)
class Unit:
    """A file of the service manager's."""

    path: Path
    text: str


def program(name: str) -> list[str]:
    arguments = ["agent"] if name == AGENT else ["recover", "--once"]
    return [sys.executable, "-m", "host_agent.cli.main", *arguments]
