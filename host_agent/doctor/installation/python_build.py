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
    """Yield one finding: a fault if this machine is a Mac and its Python cannot load MLX, because Python was
    not built for arm64; else `ok`.
    """
    if sys.platform != "darwin":
        version = f"Python {platform.python_version()}, {platform.machine()}."
        yield Finding(NAME, "ok", version, "", sys.executable)
        return
    machine = sysctl.parse(commands.output(*sysctl.HARDWARE_COMMAND) or "")
    yield assess_build(platform.machine(), sysctl.has_apple_silicon(machine), sys.executable)


def assess_build(built_for: str, apple_silicon: bool, executable: str) -> Finding:
    """Return a finding that says whether a Mac's Python, the program `executable`, can load MLX.

    `built_for` is the architecture that Python was built for, such as `arm64`. `apple_silicon` is True if the
    Mac has an arm64 processor.
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
