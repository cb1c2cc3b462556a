"""Read the logs of containers through `docker compose logs`, once or while they are written."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from queue import SimpleQueue

from host_agent.cli.logs.log_line import LogLine, parse_container_line
from host_agent.cli.logs.reading import TimedLine, with_times
from host_agent.errors import ComposeFailed
from host_agent.services.docker.compose import Compose, last_lines
from vestal.config import Config

RESTART_DELAY_S = 1.0
AFTER_LAST_LINE_S = 1e-6


class ContainerLog:
    """Reads the log of one service that runs in a container.

    Creating it raises DockerUnavailable if there is no command `docker`.
    """

    def __init__(self, service: str, config: Config) -> None:
        self.service = service
        self._compose = Compose(config)
        self._command = self._compose.command("logs", "--no-color", "--no-log-prefix", "--timestamps")
        self._read_until = time.time()
        self._new: SimpleQueue[LogLine] = SimpleQueue()
        self._follower: subprocess.Popen[str] | None = None
        self._is_stopping = False

    def tail(self, count: int, *, whole: bool) -> Iterator[TimedLine]:
        """Yield the last `count` lines, or all lines if `whole`. Raises ComposeFailed if `docker compose`
        fails.
        """
        return self._read() if whole else self._read("--tail", str(count))

    def since(self, ts: float) -> Iterator[TimedLine]:
        """Yield the lines since `ts` (seconds since 1970). Raises ComposeFailed if `docker compose` fails."""
        return self._read("--since", _utc(ts))

    def follow(self) -> None:
        """Start a thread that reads new lines until `stop` is called."""
        threading.Thread(target=self._follow, name=f"log of {self.service}", daemon=True).start()

    def new_lines(self) -> Iterator[TimedLine]:
        """Yield the lines that the thread of `follow` has read since the last call."""
        lines = [self._new.get() for _ in range(self._new.qsize())]
        yield from with_times(lines, time.time())

    def stop(self) -> None:
        """End the `docker compose` process that follows the log."""
        self._is_stopping = True
        if self._follower is not None:
            self._follower.terminate()

    def _read(self, *arguments: str) -> Iterator[TimedLine]:
        """Yield the lines that were written before this object was created; `follow` reads later ones.
        `arguments` are further options of `docker compose logs`.

        Raises ComposeFailed if `docker compose` fails.
        """
        process = self._start(*arguments, "--until", _utc(self._read_until))
        with process:
            assert process.stdout
            raw = (line.rstrip("\n") for line in process.stdout)
            lines = (parse_container_line(self.service, line).line for line in raw)
            yield from with_times(lines, self._read_until)
            assert process.stderr
            errors = process.stderr.read()
        if process.returncode:
            raise ComposeFailed(f"The log of {self.service} cannot be read: {last_lines(errors)}")

    def _follow(self) -> None:
        """Read new lines until `stop`. Start `docker compose` again when it ends, as it does if a container
        is replaced.
        """
        since = self._read_until
        while not self._is_stopping:
            self._follower = process = self._start("--follow", "--since", _utc(since))
            with process:
                assert process.stdout
                for raw in process.stdout:
                    received = parse_container_line(self.service, raw.rstrip("\n"))
                    if received.received_at is not None:
                        since = received.received_at + AFTER_LAST_LINE_S
                    self._new.put(received.line)
            time.sleep(RESTART_DELAY_S)

    def _start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*self._command, *arguments, self.service],
            env=dict(self._compose.environment()),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL if "--follow" in arguments else subprocess.PIPE,
            text=True,
            errors="replace",
        )


def _utc(ts: float) -> str:
    return datetime.fromtimestamp(ts, UTC).isoformat().replace("+00:00", "Z")
