"""Define the interface of a server in a comparison, and Vestal's gateway as such a server."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import psutil

from benchmarks.client.requests import MODEL
from benchmarks.processes.gateway import GatewayProcess

MLX_LM = "mlx_lm.server"
MB = 1 << 20
LAST_WORDS_CHARACTERS = 400
RESTART_S = 90.0
SETTINGS = {
    "VESTAL_MLX__MAX_RUNNING": "16",
    "VESTAL_SUPERVISION__MAX_RESTARTS": "10000",
    "VESTAL_SUPERVISION__BACKOFF_BASE_S": "0.1",
    "VESTAL_SUPERVISION__BACKOFF_MAX_S": "0.2",
}
"""Settings that allow many restarts, because a benchmark kills an engine more often than the policy for real
deaths allows.
"""


class Server(Protocol):
    """A running server. `url` has no `/v1` at its end; `model` is the name that requests use.

    `kill` kills what computes the answers, and `until_restarted` waits until the server serves again.
    """

    name: str

    @property
    def url(self) -> str: ...
    @property
    def model(self) -> str: ...
    @property
    def pid(self) -> int: ...
    @property
    def is_alive(self) -> bool: ...
    def last_words(self) -> str: ...
    def kill(self) -> None: ...
    def until_restarted(self) -> None: ...


class Vestal:
    """A gateway with its engine. `env` holds Vestal's settings as environment variables, in addition to
    SETTINGS. `folder` is the checkout whose code runs; None means the present working directory. `kill` kills
    the engine, which the gateway then replaces by itself.
    """

    def __init__(self, name: str, env: Mapping[str, str], folder: Path | None = None) -> None:
        self.name = name
        self._gateway = GatewayProcess(**SETTINGS | dict(env))
        self._gateway.folder = folder
        self.model = MODEL
        self._killed: int | None = None

    def __enter__(self) -> Vestal:
        self._gateway.__enter__()
        try:
            self._gateway.until_ok()
        except BaseException:
            self._gateway.__exit__(None)
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._gateway.__exit__(None)

    @property
    def gateway(self) -> GatewayProcess:
        return self._gateway

    @property
    def url(self) -> str:
        return self._gateway.url

    @property
    def pid(self) -> int:
        return self._gateway.pid

    @property
    def is_alive(self) -> bool:
        return _is_alive(self.pid)

    def last_words(self) -> str:
        return f"Its gateway's log ends: {self._gateway.log()}"

    def kill(self) -> None:
        self._killed = self._gateway.engine_pid()
        if self._killed is None:
            raise RuntimeError("There is no engine to kill.")
        os.kill(self._killed, signal.SIGKILL)

    def until_restarted(self) -> None:
        end = time.monotonic() + RESTART_S
        while time.monotonic() < end:
            with contextlib.suppress(OSError, ValueError, KeyError):
                health = self._gateway.health()
                if health["status"] == "ok" and health["engine"]["pid"] not in (None, self._killed):
                    return
            time.sleep(0.02)
        raise TimeoutError(f"The gateway has no new engine within {RESTART_S:g} s.")


def memory_mb(server: Server) -> float:
    """Return the memory of all processes of a server in MB. On Linux, pages that the processes share count
    once.
    """
    process = psutil.Process(server.pid)
    total = 0
    for each in (process, *process.children(recursive=True)):
        with contextlib.suppress(psutil.Error):
            full = each.memory_full_info()
            total += getattr(full, "pss", full.rss)
    return total / MB


def one_sentence(text: str) -> str:
    """Return `text`, such as an error or the end of a log, on one line. If it is longer than
    LAST_WORDS_CHARACTERS, its middle is left out; more is kept of its end than of its beginning, because a
    log ends with the error.
    """
    line = " ".join(text.split())
    if len(line) > LAST_WORDS_CHARACTERS:
        half = LAST_WORDS_CHARACTERS // 4
        line = f"{line[:half]} … {line[half - LAST_WORDS_CHARACTERS :]}"
    return line


def _is_alive(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
