"""A package that the MLX server needs is not there, or does not load: the cause of many deaths at start."""

import subprocess
import sys
from collections.abc import Iterator

from host_agent.doctor.finding import Finding
from vestal.config import Config

NAME = "missing_dependency"
PACKAGES = ("mlx.core", "mlx_lm", "fastapi", "uvicorn", "aiohttp", "numpy")
WITHIN_S = 90.0
PROGRAM = """
import importlib, sys
for name in sys.argv[1:]:
    try:
        importlib.import_module(name)
    except BaseException as error:
        print(f"{name}\\t{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}")
"""
FRESH = "delete .venv and run `make up`"


def look(config: Config, python: str = sys.executable) -> Iterator[Finding]:
    """Import each in a process of its own: a broken native library may end the process that loads it."""
    command = [python, "-c", PROGRAM, *PACKAGES]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=WITHIN_S, check=False)
    except subprocess.TimeoutExpired:
        sentence = f"importing {', '.join(PACKAGES)} took more than {WITHIN_S:.0f} s"
        yield Finding(NAME, "fault", sentence, FRESH, f"with {python}")
        return
    missing = [line.partition("\t") for line in done.stdout.splitlines() if "\t" in line]
    for name, _, why in missing:
        yield Finding(NAME, "fault", f"{name} cannot be imported", "run `make up` again", why)
    if done.returncode:
        sentence = f"importing {', '.join(PACKAGES)} ended with exit code {done.returncode}"
        yield Finding(NAME, "fault", sentence, FRESH, done.stderr.strip()[-200:])
    elif not missing:
        yield Finding(NAME, "ok", "all packages of the MLX server can be imported")
