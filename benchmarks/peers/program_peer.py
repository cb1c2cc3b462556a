"""Start a server with a model by one command, and kill it at the end."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.peers.models import BenchModel
from benchmarks.peers.process import PeerFailed, RunningProcess, answers
from benchmarks.processes.gateway import free_port
from mlx_server.blas.variables import BLAS_VARIABLE, NARROW_VARIABLE
from mlx_server.engine_environment import (
    TEMPORARY_VARIABLE,
    THREADS_CHOSEN,
    engine_environment,
)

SENT_MODEL = "bench"
LONGEST_CONTEXT = 8192
THREADS_VARIABLE = "BENCH_PEER_THREADS"
STREAMS = 16
"""The largest number of requests that a comparison sends at the same time."""
OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "RAPID_MLX_TELEMETRY": "0",
    "RAPID_MLX_DISABLE_VERSION_CHECK": "1",
    "FUSION_ALLOW_ANONYMOUS": "true",
}


class RunningPeer:
    """A server that is running. Its `url` has no `/v1` at its end; `model` is the name that requests use.

    It is a context manager, which kills the server at the end.
    """

    def __init__(self, name: str, url: str, model: str, process: RunningProcess) -> None:
        self.name, self.url, self.model = name, url, model
        self._process = process

    def __enter__(self) -> RunningPeer:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.close()

    @property
    def pid(self) -> int:
        """Return the PID of the server, which is also the id of its process group."""
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        """Return whether the server's process runs."""
        return self._process.returncode is None

    def last_words(self) -> str:
        """Return, in a sentence, how the server ended, if it has, and the last words of its log."""
        return self._process.last_words()

    def kill(self) -> None:
        """Kill the server and its children with SIGKILL."""
        self._process.kill()

    def restart_after_kill(self) -> None:
        """Kill the server unless it is dead, start it again, and wait until it answers on the same address.
        Raises PeerFailed if it does not.

        This is needed because none of the peers restarts by itself.
        """
        self._process.restart_after_kill()


@dataclass(frozen=True)
class Launch:
    """What a peer is started with: a model, a port of 127.0.0.1, and an empty folder as its home."""

    model: BenchModel
    port: int
    home: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@dataclass(frozen=True)
class ProgramPeer:
    """A server that one command starts, and with which Vestal is compared.

    `why_not` returns None if the server can run on this machine, else a sentence that says why it cannot.
    `installed_version` returns the server's version, "" if it is not installed. `command` returns the command
    as a list of arguments, and `env` environment variables to add. `model` is the name by which requests call
    the model. `needs` names the optional forms of the model that the server needs (`gguf`, `draft`).

    The server is ready when a GET of the URL path `path` is answered; then `after_start` is called. `has_mlx`
    says whether the server computes with MLX.
    """

    name: str
    why_not: Callable[[], str | None]
    installed_version: Callable[[], str]
    command: Callable[[Launch], Sequence[str]]
    model: str = SENT_MODEL
    needs: Sequence[str] = ()
    path: str = "/v1/models"
    env: Callable[[Launch], Mapping[str, str]] = lambda launch: {}
    has_mlx: bool = True
    after_start: Callable[[Launch], None] | None = None

    def available(self) -> str | None:
        return self.why_not()

    def version(self) -> str:
        return self.installed_version()

    def start(self, model: BenchModel) -> RunningPeer:
        if (why_not := self.why_not()) is not None:
            raise PeerFailed(f"{self.name} cannot run here. {why_not}")
        if missing := [form for form in self.needs if getattr(model, form) is None]:
            raise PeerFailed(f"{self.name} needs a model with {' and '.join(missing)}.")
        launch = Launch(model, free_port(), Path(tempfile.mkdtemp(prefix="vestal-peer-")))
        process = RunningProcess(
            self.name,
            self.command(launch),
            ready=lambda: answers(launch.url + self.path),
            env=(mlx_environment(launch.home) if self.has_mlx else {}) | OFFLINE | dict(self.env(launch)),
            folder=launch.home,
        )
        try:
            process.start()
            if self.after_start is not None:
                self.after_start(launch)
        except BaseException:
            process.close()
            raise
        return RunningPeer(self.name, launch.url, self.model, process)


def mlx_environment(folder: Path) -> dict[str, str]:
    """Return environment variables by which any program with MLX on Linux uses the OpenBLAS library that
    Vestal's engine uses. If the user has named a library, the variables name that library. Otherwise, they
    name a copy of the OpenBLAS in the package `scipy-openblas32`; the copy is made below `folder` if the
    package's own folder cannot be written.

    OpenBLAS gets as many threads as there are cores, which is fastest on a quiet machine; unlike Vestal's
    engine, a peer cannot change this number while it runs. On a busy machine, fewer threads are faster;
    BENCH_PEER_THREADS sets their number.
    """
    found = engine_environment(folder)
    for ours in (THREADS_CHOSEN, NARROW_VARIABLE, TEMPORARY_VARIABLE):
        found.pop(ours, None)
    if library := found.pop(BLAS_VARIABLE, os.environ.get(BLAS_VARIABLE, "")):
        found["LD_PRELOAD"] = library
    if sys.platform == "linux":
        cores = str(len(os.sched_getaffinity(0)))
        found["OPENBLAS_NUM_THREADS"] = os.environ.get(THREADS_VARIABLE) or cores
    return found
