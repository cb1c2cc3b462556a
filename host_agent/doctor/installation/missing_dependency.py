"""Diagnose packages that are missing or cannot be loaded, which makes the MLX server die at its start."""

import subprocess
import sys
from collections.abc import Iterator, Sequence

from host_agent.doctor.finding import Diagnosis, Finding
from mlx_server.model_store import catalog
from mlx_server.model_store.image_packages import missing_image_packages
from vestal.config import Config

NAME = "missing_dependency"
PACKAGES = ("mlx.core", "mlx_lm", "fastapi", "uvicorn", "aiohttp", "aiodocker", "msgspec", "numpy")
IMPORT_TIMEOUT_S = 90.0
IMPORT_PROGRAM = """
import importlib, sys
for name in sys.argv[1:]:
    try:
        importlib.import_module(name)
    except BaseException as error:
        print(f"{name}\\t{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}")
"""
REINSTALL = "Delete .venv and run `make up`."


def diagnose(config: Config, python: str = sys.executable) -> Iterator[Finding]:
    """Import the MLX server's packages in a separate process, and yield a fault for each package that cannot
    be imported, or a finding `ok` if all can. If the process crashes or takes too long, yield a fault that
    says so.

    Unless the process takes too long, also yield a fault if an installed model can read images and packages
    that it needs for images are missing.

    The process is separate because a broken native library may end the process that imports it. `python` is
    the path of the interpreter.
    """
    packages = ", ".join(PACKAGES)
    command = [python, "-c", IMPORT_PROGRAM, *PACKAGES]
    try:
        result = subprocess.run(
            command, capture_output=True, text=True, timeout=IMPORT_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        sentence = f"Importing {packages} took more than {IMPORT_TIMEOUT_S:.0f} s."
        yield Finding(NAME, "fault", sentence, REINSTALL, f"with {python}")
        return
    failed = [line.partition("\t") for line in result.stdout.splitlines() if "\t" in line]
    for name, _, error in failed:
        yield Finding(NAME, "fault", f"{name} cannot be imported.", "Run `make up` again.", error)
    if result.returncode:
        sentence = f"Importing {packages} ended with exit code {result.returncode}."
        yield Finding(NAME, "fault", sentence, REINSTALL, result.stderr.strip()[-200:])
    elif not failed:
        yield Finding(NAME, "ok", "All packages of the MLX server can be imported.")
    models = [entry.name for entry in catalog(config) if "vision" in entry.capabilities]
    yield from assess_images(models, missing_image_packages())


def assess_images(models: Sequence[str], missing: Sequence[str]) -> Iterator[Finding]:
    """Yield a fault if there are `models` that can read images, and the packages that they need for that are
    `missing`; yield nothing if either list is empty.
    """
    if models and missing:
        sentence = f"{', '.join(models)} can read images, and {', '.join(missing)} for that cannot be found."
        yield Finding(NAME, "fault", sentence, "Run `vestal up`, which installs the packages for images.")


DIAGNOSIS = Diagnosis(NAME, diagnose, IMPORT_TIMEOUT_S + 10.0)
