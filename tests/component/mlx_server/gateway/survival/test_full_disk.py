"""A gateway whose disk becomes full while it serves: no text is lost, and no process ends."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.component.mlx_server.gateway.conftest import REPO, Gateway, make_model
from tests.disks.full_disk import FullDisk, small_disk

STREAMS = 8
TOKENS = 300
PROMPT = f"tokens={TOKENS} hold_at=150 stream"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[FullDisk]:
    with small_disk(tmp_path) as disk:
        yield disk


@pytest.fixture
def gateway(disk: FullDisk, free_port: Callable[[], int]) -> Iterator[Gateway]:
    """A gateway whose home and log are on the small disk. Its own output is its log, as under the agent."""
    make_model(disk.folder / "found" / "chat", model_type="llama")
    env = {"VESTAL_MLX__MODELS_FOLDER": str(disk.folder / "found"), "VESTAL_MLX__MAX_RUNNING": str(STREAMS)}
    gateway = Gateway(disk.folder, free_port(), **env)
    yield gateway.start().until_ok()
    gateway.stop()


class Streams:
    """Eight streams, each read by a thread of its own."""

    def __init__(self, gateway: Gateway) -> None:
        self.texts = [""] * STREAMS
        self.done = [False] * STREAMS
        self._gateway = gateway
        self._threads = [threading.Thread(target=self._read, args=(number,)) for number in range(STREAMS)]
        for thread in self._threads:
            thread.start()

    def _read(self, number: int) -> None:
        body = self._gateway.chat(f"{PROMPT} {number}")
        with self._gateway.http.stream("POST", "/api/chat", json=body) as answer:
            for line in answer.iter_lines():
                part = json.loads(line)
                self.texts[number] += part["message"]["content"]
                self.done[number] = part["done"]

    def finish(self) -> None:
        for thread in self._threads:
            thread.join(60)


def test_gateway_whose_disk_fills_up_during_eight_streams_loses_no_text_and_keeps_running(
    gateway: Gateway, disk: FullDisk, text_of
):
    """Earlier, the gateway ended because it could not write a log line, and so did each restarted gateway."""
    assert gateway.process is not None
    pid = gateway.process.pid
    with gateway.held():
        streams = Streams(gateway)
        gateway.until(lambda: all(streams.texts), "all streams run")
        disk.fill(pid)
        gateway.kill_engine()  # the next engine starts on the full disk
        gateway.until(lambda: gateway.health()["status"] == "ok", "another engine serves")

    def log_is_full() -> bool:
        """Write a line of the log, for whose first lines there may still be room."""
        assert gateway.http.post("/api/chat", json=gateway.chat("while it is full")).status_code == 200
        return gateway.health()["write_failures"]["mlx_server"]["log"]["failed"] > 0

    gateway.until(log_is_full, "a line is dropped")
    log = gateway.health()["write_failures"]["mlx_server"]["log"]
    assert log["failing_since"] is not None
    streams.finish()
    disk.free()
    freed_at = time.monotonic()
    assert gateway.http.post("/api/chat", json=gateway.chat("freed")).status_code == 200
    assert time.monotonic() - freed_at < 10
    assert gateway.process.poll() is None
    assert gateway.health()["pid"] == pid
    assert gateway.health()["write_failures"]["mlx_server"]["log"]["failing_since"] is None
    assert streams.done == [True] * STREAMS
    assert streams.texts == [text_of(f"{PROMPT} {number}", TOKENS) for number in range(STREAMS)]
    events = _events(gateway.home / "gateway.log")
    names = [event["event"] for event in events]
    (at,) = (at for at, name in enumerate(names) if name == "log_lines_dropped")
    assert events[at]["lines"] >= log["failed"]
    assert "request_finished" in names[at:], "what follows is logged again"


def _events(log: Path) -> list[dict[str, Any]]:
    """Return the events in a log. A line that was cut off by the full disk is skipped."""
    found = []
    for line in log.read_text().splitlines():
        with contextlib.suppress(ValueError):
            found.append(json.loads(line))
    return found


def test_gateway_started_on_a_full_disk_serves_and_writes_its_files_once_there_is_space(
    gateway: Gateway, disk: FullDisk
):
    """The home folder exists, but its logs, PID files and prompt cache are gone."""
    assert gateway.process is not None
    gateway.process.terminate()
    assert gateway.process.wait(60) == 0
    for name in ("run", "logs", "cache"):
        subprocess.run(["rm", "-rf", str(gateway.home / name)], check=True)
    disk.fill()
    gateway.start().until_ok()
    assert gateway.http.post("/api/chat", json=gateway.chat("served")).status_code == 200
    disk.free()
    engine = gateway.home / "run" / "mlx_engine.json"
    gateway.until(engine.exists, "the engine's PID file is written")
    assert json.loads(engine.read_text())["pid"] == gateway.engine_pid()


def test_gateway_whose_output_is_a_broken_pipe_still_serves(gateway: Gateway, free_port: Callable[[], int]):
    gateway.stop()
    other = Gateway(gateway.home, free_port(), VESTAL_MLX__MODELS_FOLDER=str(gateway.home / "found"))
    other.process = subprocess.Popen(
        [sys.executable, *other.program],
        env=other.env,
        cwd=REPO,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert other.process.stdout is not None
    other.process.stdout.close()
    other.until_ok()
    assert other.http.post("/api/chat", json=other.chat("served")).status_code == 200
    assert other.health()["write_failures"]["mlx_server"]["log"]["error"] == "Broken pipe"
    assert other.stop() == 0
