"""A package that the MLX server needs is not there, or does not load: the cause of many deaths at start."""

import subprocess
import sys
from collections.abc import Iterator

from host_agent.config import Config
from host_agent.doctor.finding import Finding

PACKAGES = ("mlx.core", "mlx_lm", "fastapi", "uvicorn", "aiohttp", "numpy")
WITHIN_S = 120
PROGRAM = """
import importlib, sys
for name in sys.argv[1:]:
    try:
        importlib.import_module(name)
    except BaseException as error:
        print(f"{name}\\t{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}")
"""


def look(config: Config) -> Iterator[Finding]:
    """Import each in a process of its own: a broken native library may end the process that loads it."""
    command = [sys.executable, "-c", PROGRAM, *PACKAGES]
    done = subprocess.run(command, capture_output=True, text=True, timeout=WITHIN_S, check=False)
    missing = [line.partition("\t") for line in done.stdout.splitlines() if "\t" in line]
    for name, _, why in missing:
        yield Finding(
            "missing_dependency", "fault", f"{name} cannot be imported: {why}", "run `make up` again"
        )
    if done.returncode:
        why = f"importing {', '.join(PACKAGES)} ended with exit code {done.returncode}"
        yield Finding("missing_dependency", "fault", why, "delete .venv and run `make up`")
    elif not missing:
        yield Finding("missing_dependency", "ok", "all packages of the MLX server can be imported")
