"""Run mlx_lm.server, the peer of every comparison, with the model, BLAS and threads of our engine."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import IO

from benchmarks.gateway_process import LOOK_S, free_port
from mlx_server.engine_environment import engine_environment

PROGRAM = "from mlx_server import blas; blas.preload(); from mlx_lm.server import main; main()"


class PeerProcess:
    """A process of mlx_lm.server. `model` is the folder of the model that it serves."""

    def __init__(self, model: Path) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._model = model
        self._process: subprocess.Popen[bytes] | None = None
        self._folder = tempfile.TemporaryDirectory(prefix="vestal-peer-")
        self._log: IO[bytes] | None = None

    def __enter__(self) -> PeerProcess:
        folder = Path(self._folder.name)
        env = os.environ | engine_environment(folder) | {"HF_HUB_OFFLINE": "1"}
        self._log = (folder / "peer.log").open("wb")
        arguments = ["--model", str(self._model), "--port", str(self.port), "--log-level", "WARNING"]
        self._process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *arguments], env=env, stdout=self._log, stderr=self._log
        )
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        if self._log is not None:
            self._log.close()
        self._folder.cleanup()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def until_ok(self, timeout_s: float = 60.0) -> None:
        """Wait until the server answers. Raise TimeoutError."""
        end = time.monotonic() + timeout_s
        while time.monotonic() < end:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{self.url}/health", timeout=5):
                return
            time.sleep(LOOK_S)
        raise TimeoutError(f"mlx_lm.server does not answer within {timeout_s:g} s")
