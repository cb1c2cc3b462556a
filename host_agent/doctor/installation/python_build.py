"""Diagnose a Python that cannot load MLX: on a Mac, Python must be built for arm64 and not run under
Rosetta.
"""

import platform
import sys
from collections.abc import Iterator

from host_agent.doctor.finding import Diagnosis, Finding
from vestal.config import Config
from vestal.platform import commands
from vestal.platform.macos import sysctl

NAME = "python_build"
NATIVE = "arm64"


def diagnose(config: Config) -> Iterator[Finding]:
    """On a Mac, yield a finding on whether this Python was built for the Mac's processor; elsewhere, the
    result is `ok`.
    """
    if sys.platform != "darwin":
        version = f"Python {platform.python_version()}, {platform.machine()}."
        yield Finding(NAME, "ok", version, "", sys.executable)
        return
    machine = sysctl.parse(commands.output(*sysctl.HARDWARE_COMMAND) or "")
    yield assess_build(platform.machine(), sysctl.has_apple_silicon(machine), sys.executable)


def assess_build(built_for: str, apple_silicon: bool, executable: str) -> Finding:
    """Return the finding on the Python of a Mac. `built_for` is the architecture that it was built for, such
    as `arm64`.
    """
    if built_for == NATIVE:
        return Finding(NAME, "ok", f"Python is built for {NATIVE}.", "", executable)
    evidence = f"{executable} is built for {built_for}"
    if apple_silicon:
        sentence = "This Python runs under Rosetta, and cannot load MLX."
        install = "`arch -arm64 brew install python@3.12`"
        remedy = f"Delete .venv, install an arm64 Python ({install}), and run `make up`."
        return Finding(NAME, "fault", sentence, remedy, evidence)
    sentence = "This Mac has no Apple silicon, which MLX needs."
    return Finding(NAME, "fault", sentence, "Use another machine.", evidence)


DIAGNOSIS = Diagnosis(NAME, diagnose)
