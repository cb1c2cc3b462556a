"""A real engine process over a socketpair, as the gateway starts it, with the real small models."""

import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mlx_server.engine_environment import engine_environment
from mlx_server.protocol import Event, Failed, Hello, Op, Ready, decode_event, encode

REPOSITORY = Path(__file__).parents[3]
MODELS = REPOSITORY / ".cache" / "test-models"
CHAT, EMBED = "smollm2:135m", "all-minilm:latest"


class Engine:
    """The gateway's end. Every wait has a deadline; all that was received is kept in `events`."""

    def __init__(self, home: Path, **env: str) -> None:
        ours, theirs = socket.socketpair()
        self.log = home / "engine.log"
        self.socket = ours
        self._buffer = b""
        self.events: list[Event] = []
        whole = os.environ | engine_environment(MODELS.parent) | {"VESTAL_HOME": str(home)} | env
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "mlx_server.engine", "--fd", str(theirs.fileno())],
                pass_fds=[theirs.fileno()], env=whole, stdout=log, stderr=log, cwd=home, start_new_session=True,
            )  # fmt: skip
        theirs.close()

    def send(self, *ops: Op) -> None:
        self.socket.sendall(b"".join(map(encode, ops)))

    def wait(self, wanted: Callable[[Event], object], timeout_s: float = 30.0) -> Event:
        """The next event that is `wanted`; the ones before it are in `events` too."""
        deadline = time.monotonic() + timeout_s
        while True:
            while b"\n" in self._buffer:
                line, _, self._buffer = self._buffer.partition(b"\n")
                event = decode_event(line)
                self.events.append(event)
                if wanted(event):
                    return event
            left = deadline - time.monotonic()
            assert left > 0, f"no such event within {timeout_s} s; log:\n{self.log.read_text()}"
            if select.select([self.socket], [], [], left)[0]:
                data = self.socket.recv(1 << 20)
                assert data, f"the engine is gone; log:\n{self.log.read_text()}"
                self._buffer += data

    def wait_kind(self, *kinds: type, id: str | None = None, timeout_s: float = 30.0) -> Event:
        return self.wait(
            lambda e: isinstance(e, kinds) and (id is None or getattr(e, "id", None) == id), timeout_s
        )

    def of(self, id: str) -> list[Event]:
        return [event for event in self.events if getattr(event, "id", None) == id]

    def logged(self) -> list[dict]:
        lines = self.log.read_text().splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    def close(self) -> None:
        self.socket.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


@pytest.fixture(scope="session")
def models() -> Path:
    """The folder with the built-in models, fetched through the model store the first time."""
    env = os.environ | {"VESTAL_HOME": str(MODELS.parent / "test-home"), "VESTAL_MLX__STORE": str(MODELS)}
    command = [sys.executable, "-m", "mlx_server.model_store", "ensure", CHAT, EMBED]
    result = subprocess.run(command, env=env, capture_output=True, text=True, timeout=110, cwd=MODELS.parent)
    assert result.returncode == 0, result.stdout + result.stderr
    return MODELS


@pytest.fixture(scope="session")
def start(models: Path, tmp_path_factory) -> Iterator[Callable[..., Engine]]:
    """Starts engines; those that still run at the end are ended."""
    engines: list[Engine] = []

    def start_engine(**env: str) -> Engine:
        home = tmp_path_factory.mktemp("home")
        engine = Engine(home, **{"VESTAL_MLX__STORE": str(models), **env})
        engines.append(engine)
        return engine

    yield start_engine
    for engine in engines:
        engine.close()


@pytest.fixture(scope="session")
def engine(start) -> Engine:
    """One engine, ready, shared by the tests that leave it as they found it."""
    shared: Engine = start()
    shared.wait_kind(Hello)
    shared.wait_kind(Ready)
    assert not [event for event in shared.events if isinstance(event, Failed)]
    return shared
