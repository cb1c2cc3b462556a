"""Run a peer's process, find out whether it serves, and say why it ended."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

LOOK_S = 0.05
STOP_S = 5.0
READ_BYTES = 64 << 10
LONGEST = 300
ERROR_LINE = re.compile(r"^(?:\w+\.)*\w*(?:Error|Exception|Exit|Interrupt|Failure)\b.*|^error: .*")


class Peer(Protocol):
    """A program with which Vestal is compared."""

    @property
    def name(self) -> str: ...

    def available(self) -> str | None:
        """Return None if the peer can run on this machine, else, in a sentence, why it cannot."""

    def version(self) -> str:
        """Return the installed version; "" if the peer is not installed."""


class PeerFailed(RuntimeError):
    """A peer does not serve; the message says why, with the last words of its log."""


class RunningProcess:
    """A process in a process group of its own. `start` starts it and waits until `ready` returns True.
    `start` raises PeerFailed if the process ends before that, or if `ready` is still False after
    `start_timeout_s` seconds.

    `folder` is the home folder ($HOME) of the process, and also gets its log; by default it is a new
    temporary folder. `close` deletes `folder`, even if the caller chose it. `cwd` is the working directory,
    by default `folder`. `env` is added to the environment variables of this process.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        ready: Callable[[], bool],
        env: Mapping[str, str],
        folder: Path | None = None,
        cwd: Path | None = None,
        start_timeout_s: float = 120.0,
    ) -> None:
        self.name, self.command = name, list(command)
        self.folder = folder or Path(tempfile.mkdtemp(prefix="vestal-peer-"))
        self._cwd = cwd or self.folder
        self._ready, self._env, self._timeout_s = ready, dict(env), start_timeout_s
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None, "The process was never started."
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """Return the exit code, negative for a signal; None while the process runs."""
        return None if self._process is None else self._process.poll()

    def start(self) -> None:
        """Start the process and wait until it serves. If it does not, kill it and raise PeerFailed."""
        with (self.folder / "peer.log").open("ab") as log:
            try:
                self._process = subprocess.Popen(
                    self.command,
                    env=os.environ | {"HOME": str(self.folder)} | self._env,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    cwd=self._cwd,
                    start_new_session=True,
                )
            except OSError as error:
                raise PeerFailed(f"{self.name} cannot be started: {error}.") from error
        try:
            self._until_ready()
        except BaseException:
            self.kill()
            raise

    def _until_ready(self) -> None:
        end = time.monotonic() + self._timeout_s
        while time.monotonic() < end:
            if self.returncode is not None:
                raise PeerFailed(f"{self.name} ended before it answered. {self.last_words()}")
            if self._ready():
                return
            time.sleep(LOOK_S)
        raise PeerFailed(f"{self.name} does not answer within {self._timeout_s:g} s. {self.last_words()}")

    def kill(self) -> None:
        """Kill the process and all in its process group with SIGKILL, and wait for its end."""
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def terminate(self, timeout_s: float = STOP_S) -> None:
        """Send SIGTERM to the process, but not to its children, and wait up to `timeout_s` seconds for its
        end. If it still runs then, return without killing it.
        """
        if self._process is None:
            return
        self._process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout_s)

    def restart_after_kill(self) -> None:
        """Kill the process with SIGKILL unless it is dead, start it again, and wait until it serves. Raises
        PeerFailed if it does not.
        """
        self.kill()
        self.start()

    def close(self) -> None:
        """Kill the process and delete its folder."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def last_words(self) -> str:
        """Return, in a sentence, how the process ended, if it has, and the last words of its log."""
        return last_words(read_end(self.folder / "peer.log"), self.returncode)


def read_end(log: Path) -> str:
    """Return the last READ_BYTES bytes of a log as text; "" if the log cannot be read."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - READ_BYTES))
            return file.read().decode("utf-8", "replace")
    except OSError:
        return ""


def last_words(log: str, returncode: int | None) -> str:
    """Return how a process ended, and the line of its log that says why: the last error, else the last line.

    `returncode` is the exit code, negative for a signal; None while the process runs.
    """
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    errors = [line for line in lines if ERROR_LINE.match(line)]
    said = (errors or lines or [""])[-1][:LONGEST]
    if returncode is None:
        ended = "It still runs"
    elif returncode < 0:
        ended = f"It was ended by {_signal_name(-returncode)}"
    else:
        ended = f"It ended with exit code {returncode}"
    return f"{ended}; its log ends: {said}" if said else f"{ended}; its log is empty."


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def answers(url: str, timeout_s: float = 5.0) -> bool:
    """Return whether a GET of the URL is answered with a status below 400 within `timeout_s` seconds."""
    try:
        with urllib.request.urlopen(url, timeout=timeout_s) as reply:
            return bool(reply.status < 400)
    except (OSError, ValueError, urllib.error.URLError):
        return False
