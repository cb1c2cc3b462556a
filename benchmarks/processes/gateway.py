"""Run a gateway with its real engine and the installed models, in its own home and on its own port."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from vestal.config import load

FOREIGN = ("VESTAL_", "MLX_")
BUILT_IN = ("smollm2__135m", "all-minilm__latest")
STOP_S = 45.0
LOOK_S = 0.05


def installed_models() -> Path:
    """Return the folder of the user's models, because a benchmark downloads none. Raises SystemExit if a
    built-in model is missing.
    """
    folder = load().models_dir
    if missing := [name for name in BUILT_IN if not (folder / name).is_dir()]:
        raise SystemExit(
            f"{folder} has no {' and no '.join(missing)}: run `make up` once, or name a folder that has them "
            "in VESTAL_MODELS_DIR."
        )
    return folder


class GatewayProcess:
    """A gateway process with a new home folder. The process is started when a `with` block begins. When the
    block ends, the process is stopped and the folder is deleted.

    The constructor's `program` holds the command-line arguments of the Python interpreter; by default, they
    start the gateway with its real engine. Its `env` holds additional environment variables, such as Vestal's
    settings; the process inherits no variable that begins with VESTAL_ or MLX_.

    The attribute `folder` may be set before the `with` block. It is the checkout whose code runs, and the
    working directory of the process; None means the present working directory.
    """

    folder: Path | None = None

    def __init__(self, *program: str, **env: str) -> None:
        self._program = program or ("-m", "mlx_server.gateway")
        models = installed_models()
        self.home = Path(tempfile.mkdtemp(prefix="vestal-bench-"))
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        clean = {k: v for k, v in os.environ.items() if not k.startswith(FOREIGN)}
        own = {"VESTAL_HOME": str(self.home), "VESTAL_MLX_PORT": str(self.port)}
        self._env = clean | own | {"VESTAL_MODELS_DIR": str(models)} | env
        self._log = self.home / "gateway.log"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> GatewayProcess:
        with self._log.open("wb") as log:
            command = [sys.executable, *self._program]
            self._process = subprocess.Popen(command, cwd=self.folder, env=self._env, stdout=log, stderr=log)
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        if error is not None and self._process is not None and self._process.poll() is not None:
            ended = f"The gateway ended with {self._process.poll()}. Its log ends:"
            print(f"{ended}\n{self.log()[-2000:]}", file=sys.stderr)
        try:
            self._stop()
        finally:
            shutil.rmtree(self.home, ignore_errors=True)

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def health(self) -> dict[str, Any]:
        with urllib.request.urlopen(f"{self.url}/health", timeout=5) as answer:
            return dict(json.load(answer))

    def until_ok(self, timeout_s: float = 60.0) -> None:
        """Wait until an engine serves. Raises TimeoutError, with the end of the log, if no engine serves
        within `timeout_s` seconds.
        """
        end = time.monotonic() + timeout_s
        while time.monotonic() < end:
            with contextlib.suppress(OSError, ValueError):
                if self.health()["status"] == "ok":
                    return
            if self._process is None or self._process.poll() is not None:
                break
            time.sleep(LOOK_S)
        raise TimeoutError(f"The gateway is not healthy. Its log ends:\n{self.log()[-2000:]}")

    def engine_pid(self) -> int | None:
        """Return the PID of the running engine; None between two engines."""
        with contextlib.suppress(OSError, ValueError, KeyError):
            return int(json.loads((self.home / "run" / "mlx_engine.json").read_text())["pid"])
        return None

    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def events(self, *names: str) -> Iterator[dict[str, Any]]:
        """Yield the events with these names that are in the gateway's log when iteration begins, oldest
        first. Without names, none is yielded.
        """
        for line in self.log().splitlines():
            if line.startswith("{"):
                with contextlib.suppress(ValueError):
                    event = json.loads(line)
                    if event["event"] in names:
                        yield event

    def _stop(self) -> None:
        process = self._process
        if process is None:
            return
        engine = self.engine_pid()
        if engine is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(engine, signal.SIGCONT)  # a suspended engine could not exit
        process.terminate()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            for child in psutil.Process(process.pid).children(recursive=True):
                child.kill()
            process.kill()
            process.wait()


def free_port() -> int:
    """Return a TCP port of the loopback address on which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
