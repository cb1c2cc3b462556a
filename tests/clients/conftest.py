"""Run real MLX servers for the client packages of other projects.

Most tests use the server whose chat model is small: it computes a token some fifteen times faster. Tests that
need an answer which makes sense use the one with the real chat model.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.component.mlx_server.gateway.conftest import make_gateway as make_gateway
from tests.waiting import looks

START_S = 90


@dataclass(frozen=True)
class Server:
    url: str
    home: Path

    def kill_engine_after(self, tokens: int) -> None:
        """Have the engine killed once it has sent this many more tokens: see `engine_that_is_killed.py`."""
        whole = self._orders.with_suffix(".new")  # an engine that answers must not read half of the orders
        whole.write_text(json.dumps({"tokens": tokens}))
        whole.replace(self._orders)

    @property
    def engine_was_killed(self) -> bool:
        return not self._orders.exists()

    @property
    def _orders(self) -> Path:
        return self.home / "kill.json"


@pytest.fixture(scope="session")
def server(
    tmp_path_factory: pytest.TempPathFactory, small_models_dir: Path, free_port: Callable[[], int], repo: Path
) -> Iterator[Server]:
    """Run a server with the small chat model, whose engine can be killed in the middle of an answer."""
    program = str(repo / "tests" / "children" / "gateway_with_killed_engine.py")
    with _running(tmp_path_factory.mktemp("home"), free_port(), small_models_dir, repo, program) as server:
        yield server


@pytest.fixture(scope="session")
def real_server(
    tmp_path_factory: pytest.TempPathFactory, models_dir: Path, free_port: Callable[[], int], repo: Path
) -> Iterator[Server]:
    """Run a server with the real chat model."""
    home = tmp_path_factory.mktemp("home")
    with _running(home, free_port(), models_dir, repo, "-m", "mlx_server.gateway") as server:
        yield server


@contextmanager
def _running(home: Path, port: int, models_dir: Path, repo: Path, *program: str) -> Iterator[Server]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("VESTAL_", "MLX_"))}
    own = {"VESTAL_HOME": str(home), "VESTAL_MLX_PORT": str(port), "VESTAL_MODELS_DIR": str(models_dir)}
    own |= {"PYTHONPATH": str(repo)}
    with (home / "gateway.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, *program], env=clean | own, cwd=repo, stdout=log, stderr=log
        )
    try:
        server = Server(f"http://127.0.0.1:{port}", home)
        _until_ok(server, home)
        yield server
    finally:
        process.terminate()
        process.wait(60)


def _until_ok(server: Server, home: Path) -> None:
    with httpx.Client(timeout=10, verify=False) as client:  # a TLS context costs 30 ms
        for _ in looks(START_S):
            with suppress(httpx.HTTPError):
                if client.get(f"{server.url}/health").json()["status"] == "ok":
                    return
    raise AssertionError(f"the server is not ok: {(home / 'gateway.log').read_text()[-3000:]}")
