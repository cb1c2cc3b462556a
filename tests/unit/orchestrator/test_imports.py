"""R5.6: nothing heavy is imported before it is needed."""

from __future__ import annotations

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
def test_module_when_imported_has_loaded_nothing_heavy(repo: Path, module: str, not_loaded: tuple[str, ...]):
    program = f"import sys, {module}; print([m for m in {not_loaded!r} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=repo, capture_output=True, text=True, timeout=30, check=True
    )
    assert done.stdout.strip() == "[]"
