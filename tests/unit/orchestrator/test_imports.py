"""The orchestrator imports no heavy package before it needs it, and nothing that its image lacks."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = ("dbos", "sqlalchemy", "psycopg", "numpy", "pydantic", "yaml")


@pytest.mark.parametrize(
    ("module", "not_loaded"),
    [
        ("orchestrator.processes.service", HEAVY),
        ("orchestrator.processes.nightly", HEAVY),
        ("orchestrator.processes.healthcheck", (*HEAVY, "aiohttp")),
    ],
)
def test_import_of_any_orchestrator_module_loads_no_heavy_package(
    repo: Path, module: str, not_loaded: tuple[str, ...]
):
    program = f"import sys, {module}; print([m for m in {not_loaded!r} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=repo, capture_output=True, text=True, timeout=110, check=True
    )
    assert done.stdout.strip() == "[]"


def test_container_image_contains_every_module_that_the_orchestrator_imports(repo: Path, tmp_path: Path):
    """The Dockerfile copies, and .dockerignore admits, all modules that the orchestrator imports."""
    copies = re.findall(
        r"^COPY ((?:vestal|orchestrator)\S*) /app/(\S+)$",
        (repo / "deploy" / "Dockerfile").read_text(),
        re.MULTILINE,
    )
    admitted = (repo / ".dockerignore").read_text().splitlines()
    for source, target in copies:
        assert f"!{source}" in admitted
        if (repo / source).is_dir():
            shutil.copytree(repo / source, tmp_path / target, dirs_exist_ok=True)
        else:
            (tmp_path / target).mkdir(parents=True, exist_ok=True)
            shutil.copy(repo / source, tmp_path / target)
    program = "import orchestrator, pkgutil, importlib, vestal.web\n"
    program += "names = [m.name for m in pkgutil.walk_packages(orchestrator.__path__, 'orchestrator.')]\n"
    program += "[importlib.import_module(name) for name in names if not name.endswith('__main__')]\n"
    program += "print(orchestrator.__file__, vestal.web.__file__)"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=110
    )
    assert done.stdout.count(str(tmp_path)) == 2, done.stdout + done.stderr
