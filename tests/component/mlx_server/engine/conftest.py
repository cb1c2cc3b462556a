"""A real engine process over a socketpair, as the gateway starts it."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from mlx_server.engine_environment import engine_environment
from mlx_server.protocol import (
    Done,
    Event,
    Failed,
    FrameBuffer,
    Generate,
    Op,
    Ready,
    Sampling,
    Token,
    decode_event,
    encode,
)

CHAT, EMBED = "smollm2:135m", "all-minilm:latest"


class Engine:
    """The gateway's end. Every wait has a deadline; all that was received is kept in `events`."""

    def __init__(self, home: Path, env: dict[str, str]) -> None:
        ours, theirs = socket.socketpair()
        self.log, self.socket, self._frames = home / "engine.log", ours, FrameBuffer()
        self.events: list[Any] = []
        self._seen = 0
        whole = os.environ | engine_environment(home) | {"VESTAL_HOME": str(home)} | env
        command = [sys.executable, "-m", "mlx_server.engine", "--fd", str(theirs.fileno())]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                command, pass_fds=[theirs.fileno()], env=whole, stdout=log, stderr=log, cwd=home,
                start_new_session=True,
            )  # fmt: skip
        theirs.close()

    def send(self, *ops: Op) -> None:
        self.socket.sendall(b"".join(map(encode, ops)))

    def wait(self, wanted: Callable[[Any], object], timeout_s: float = 40.0, after: int = 0) -> Any:
        """The first event received so far, or to come, that is `wanted`. The first `after` events do not
        count.
        """
        deadline = time.monotonic() + timeout_s
        at = after
        while True:
            for event in self.events[at:]:
                if wanted(event):
                    return event
            at = len(self.events)
            self._receive(deadline)

    def _receive(self, deadline: float) -> None:
        left = deadline - time.monotonic()
        assert left > 0, f"no such event in time; log:\n{self.log.read_text()}"
        if select.select([self.socket], [], [], left)[0]:
            data = self.socket.recv(1 << 20)
            assert data, f"the engine is gone; log:\n{self.log.read_text()}"
            self.events += [decode_event(frame) for frame in self._frames.feed(data)]

    def answer(self, id: str, *kinds: type[Event]) -> Any:
        """The event that ends request `id`: one of `kinds`, or `Failed`."""
        return self.wait(lambda e: isinstance(e, (*kinds, Failed)) and getattr(e, "id", None) == id)

    def tokens(self, id: str) -> list[Token]:
        return [event for event in self.events if isinstance(event, Token) and event.id == id]

    def text(self, id: str) -> str:
        """The whole answer to `Generate` `id`."""
        done = self.answer(id, Done)
        assert isinstance(done, Done), done
        return "".join(token.text for token in self.tokens(id)) + done.text

    def wait_for_next(self, wanted: Callable[[Any], object], timeout_s: float = 40.0) -> Any:
        """The first event to come that is `wanted`. Reports of an idle engine equal earlier ones, so they can
        only be told apart by when they came.
        """
        return self.wait(wanted, timeout_s, after=len(self.events))

    def logged(self) -> list[dict]:
        lines = self.log.read_text().rpartition("\n")[0].splitlines()  # the engine may be writing one more
        return [json.loads(line) for line in lines if line.startswith("{")]

    def close(self) -> None:
        self.socket.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


def chat(id: str, content: str, max_tokens: int | None = 16, **more: Any) -> Generate:
    """A greedy chat request, unless `sampling` says otherwise."""
    more = {"sampling": Sampling(temperature=0.0), **more}
    return Generate(
        id, CHAT, "chat", messages=({"role": "user", "content": content},), max_tokens=max_tokens, **more
    )


@contextmanager
def engines_started(
    models_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., Engine]]:
    """Yield a function that starts an engine with further environment; end those that still run."""
    engines: list[Engine] = []

    def start_engine(**env: str) -> Engine:
        home = tmp_path_factory.mktemp("home")
        engines.append(Engine(home, {"VESTAL_MODELS_DIR": str(models_dir), **env}))
        return engines[-1]

    try:
        yield start_engine
    finally:
        for engine in engines:
            engine.close()


@pytest.fixture(scope="module")
def start(small_models_dir: Path, tmp_path_factory) -> Iterator[Callable[..., Engine]]:
    """A function that starts an engine; all are ended when the file of tests has ended."""
    with engines_started(small_models_dir, tmp_path_factory) as start_engine:
        yield start_engine


@pytest.fixture(scope="module")
def start_real(models_dir: Path, tmp_path_factory) -> Iterator[Callable[..., Engine]]:
    """The same with the real chat model: where the text has to make sense, or the size matters."""
    with engines_started(models_dir, tmp_path_factory) as start_engine:
        yield start_engine


@pytest.fixture(scope="session")
def engine(small_models_dir: Path, tmp_path_factory) -> Iterator[Engine]:
    """One engine, ready, shared by the tests that leave it as they found it."""
    yield from _shared_engine(small_models_dir, tmp_path_factory)


@pytest.fixture(scope="session")
def real_engine(models_dir: Path, tmp_path_factory) -> Iterator[Engine]:
    """The same with the real chat model."""
    yield from _shared_engine(models_dir, tmp_path_factory)


def _shared_engine(models_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    folder = tmp_path_factory.mktemp("models")
    write_broken_model(folder / "broken")
    with engines_started(models_dir, tmp_path_factory) as start_engine:
        shared = start_engine(VESTAL_MLX__MODELS_FOLDER=str(folder), VESTAL_MLX__MAX_RUNNING="8")
        ready = shared.wait(lambda e: isinstance(e, Ready))
        assert set(ready.loaded) == {CHAT, EMBED}
        yield shared


def write_broken_model(folder: Path) -> None:
    """A folder that looks like a model, of a kind that nobody can load."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "no-such-architecture"}))
    header = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))
