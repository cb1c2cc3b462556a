"""The Python that runs Vestal: on a Mac it must be an arm64 one, for one under Rosetta cannot load MLX."""

import platform
import sys
from collections.abc import Iterator

from host_agent.doctor.finding import Finding
from vestal.config import Config
from vestal.platform import commands
from vestal.platform.macos import sysctl

NAME = "python_build"
NATIVE = "arm64"


def look(config: Config) -> Iterator[Finding]:
    """By what the interpreter is built for, and what the machine is."""
    version = f"Python {platform.python_version()}, {platform.machine()}"
    if sys.platform != "darwin":
        yield Finding(NAME, "ok", version, "", sys.executable)
        return
    machine = sysctl.parse(commands.output(*sysctl.HARDWARE_COMMAND) or "")
    yield judge(platform.machine(), sysctl.has_apple_silicon(machine), sys.executable)


def judge(built_for: str, apple_silicon: bool, executable: str) -> Finding:
    """On a Mac."""
    if built_for == NATIVE:
        return Finding(NAME, "ok", f"Python is built for {NATIVE}", "", executable)
    evidence = f"{executable} is built for {built_for}"
    if apple_silicon:
        sentence = "this Python runs under Rosetta, and cannot load MLX"
        remedy = (
            "delete .venv, install an arm64 Python (`arch -arm64 brew install python@3.12`), run `make up`"
        )
        return Finding(NAME, "fault", sentence, remedy, evidence)
    return Finding(
        NAME, "fault", "this Mac has no Apple silicon, which MLX needs", "use another machine", evidence
    )
