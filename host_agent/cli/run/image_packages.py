"""Install the packages of the extra `vision`, but only if an installed model can read images."""

import importlib.metadata
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from host_agent.cli.run.progress import Progress
from mlx_server.model_store import catalog
from mlx_server.model_store.image_packages import missing_image_packages
from vestal.config import Config

ROOT = Path(__file__).resolve().parents[3]
NAME = "images"
BY_HAND = "pip install --no-deps --require-hashes -r requirements/vision.lock"
LOCK = ROOT / "requirements" / "vision.lock"
PINNED = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;]+)", re.MULTILINE)
INSTALL_TIMEOUT_S = 600.0
Run = Callable[[Sequence[str]], bool]
"""A function that runs a command with its output shown, and returns whether it succeeded."""


def models_for_images(config: Config) -> list[str]:
    """Return the names of the installed models that can read images."""
    return [entry.name for entry in catalog(config) if "vision" in entry.capabilities]


def missing_or_outdated(lock: Path) -> tuple[str, ...]:
    """Return those packages named in the lock file `lock` that are missing, or installed in a version that
    the file does not name.

    If the file cannot be read, versions are not checked: return the result of `missing_image_packages`, which
    names the packages that the engine needs to read images and that are missing.
    """
    try:
        pinned = PINNED.findall(lock.read_text())
    except OSError:
        return missing_image_packages()
    versions: dict[str, set[str]] = {}
    for name, version in pinned:  # a package may have one version for each Python
        versions.setdefault(name, set()).add(version)
    return tuple(name for name, wanted in versions.items() if _installed_version(name) not in wanted)


def _installed_version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def install_if_needed(
    config: Config,
    progress: Progress,
    missing: Callable[[], Sequence[str]] = lambda: missing_or_outdated(LOCK),
    run: Run | None = None,
) -> None:
    """Install the packages for images if an installed model reads images and `missing` returns packages.

    A failure, for example without a network, is shown and not raised, because the models can still serve
    text. Outside the checkout's `.venv`, only the command for an installation by hand is shown. `run`
    replaces the function that runs the installation.
    """
    if not (lacking := missing()) or not (models := models_for_images(config)):
        return
    named = f"{', '.join(models)} reads images" if len(models) == 1 else f"{', '.join(models)} read images"
    if run is None and Path(sys.prefix).resolve() != ROOT / ".venv":
        progress.show(
            NAME, f"{named}, and {', '.join(lacking)} are missing or outdated: run `{BY_HAND}` in {ROOT}"
        )
        return
    progress.show(NAME, f"{named}: installing {', '.join(lacking)} (some 11 MB)")
    if not (run or _run_shown)(("/bin/sh", str(ROOT / "deploy" / "bootstrap.sh"), "vision")):
        without = "going on with text only; the next `vestal up` tries again"
        progress.show(NAME, f"the packages could not be installed (see above); {without}")


def _run_shown(command: Sequence[str]) -> bool:
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, check=False, timeout=INSTALL_TIMEOUT_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        print(f"{command[-1]}: {error}", file=sys.stderr)
        return False
    return done.returncode == 0
