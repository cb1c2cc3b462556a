"""Run one real MLX server with the built-in models for the client packages of other projects."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.component.mlx_server.gateway.conftest import make_gateway as make_gateway

START_S = 90


@dataclass(frozen=True)
class Server:
    url: str

    @property
    def engine_pid(self) -> int:
        return httpx.get(f"{self.url}/health").json()["engine"]["pid"]


@pytest.fixture(scope="session")
def server(
    tmp_path_factory: pytest.TempPathFactory, models_dir: Path, free_port: Callable[[], int], repo: Path
) -> Iterator[Server]:
    home, port = tmp_path_factory.mktemp("home"), free_port()
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("VESTAL_", "MLX_"))}
    own = {"VESTAL_HOME": str(home), "VESTAL_MLX_PORT": str(port), "VESTAL_MODELS_DIR": str(models_dir)}
    with (home / "gateway.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "mlx_server.gateway"], env=clean | own, cwd=repo, stdout=log, stderr=log
        )
    try:
        server = Server(f"http://127.0.0.1:{port}")
        _until_ok(server, home)
        yield server
    finally:
        process.terminate()
        process.wait(60)


def _until_ok(server: Server, home: Path) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        try:
            if httpx.get(f"{server.url}/health", timeout=2).json()["status"] == "ok":
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.05)
    raise AssertionError(f"the server is not ok: {(home / 'gateway.log').read_text()[-3000:]}")
