"""What the agent passes to the program that replaces it in its own process: sockets, the lock, and a report.

`execve` keeps the PID, the children, and each file descriptor that is marked as inheritable. An environment
variable lists these descriptors; the new program removes the variable before it starts any child.
"""

import asyncio
import json
import os
import signal
import socket
import threading
import time
from collections.abc import MutableMapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, NoReturn

from vestal.web.listening_sockets import InheritedSockets

VARIABLE = "VESTAL_AGENT_INHERITS"
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
THREADS_END_S, LOOK_S = 1.0, 0.002


@dataclass
class HandedOver:
    """What an agent that replaces itself passes to the new program; empty after an ordinary start.

    `listening` are the listening sockets of the agent's own HTTP server and those of the gateway. `lock` is
    the file descriptor that holds the lock on the home folder. `report` is the report of the upgrade that is
    under way.
    """

    listening: list[socket.socket] = field(default_factory=list)
    lock: int | None = None
    report: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def from_environment(cls, environment: MutableMapping[str, str] = os.environ) -> "HandedOver":
        """Read the environment variable VESTAL_AGENT_INHERITS and remove it. A missing or invalid value gives
        an empty object.
        """
        try:
            fields = json.loads(environment.pop(VARIABLE, "") or "{}")
            sockets = InheritedSockets.of_descriptors(int(fd) for fd in fields.get("sockets", ()))
            lock = fields.get("lock")
            return cls(sockets, None if lock is None else int(lock), dict(fields.get("report", {})))
        except (ValueError, TypeError, AttributeError):
            return cls()

    def sockets(self) -> InheritedSockets:
        """Return the inherited sockets as an object that finds a socket by its address and port."""
        return InheritedSockets(self.listening)

    def execute(self, command: Sequence[str], environment: MutableMapping[str, str]) -> NoReturn:
        """Replace this program by `command` with `execve`. Raises OSError if `command` cannot be executed.

        The caller must have ended all other threads (`end_threads`) and blocked STOP_SIGNALS, so that a
        signal that arrives meanwhile is delivered to the new program.
        """
        kept = [each.fileno() for each in self.listening]
        named = {"sockets": kept, "lock": self.lock, "report": self.report}
        for descriptor in (*kept, *(() if self.lock is None else (self.lock,))):
            os.set_inheritable(descriptor, True)
        os.execve(command[0], list(command), {**environment, VARIABLE: json.dumps(named)})


async def end_threads(pool: ThreadPoolExecutor) -> None:
    """End the threads of `pool`, which cannot be used afterwards. Wait until the calling thread is the only
    one of the process, but at most THREADS_END_S seconds, because a thread may wait for a disk that does not
    answer.

    This is done before `execve`, which ends all other threads. The system may deliver a signal to any thread
    that does not block it, so a stop signal that another thread received just before `execve` would be lost.
    """
    pool.shutdown(wait=False)
    until_s = time.monotonic() + THREADS_END_S
    while threading.active_count() > 1 and time.monotonic() < until_s:  # noqa: ASYNC110 - no event tells
        await asyncio.sleep(LOOK_S)


def accept_stop_signals() -> None:
    """Unblock STOP_SIGNALS, which are blocked while a program replaces another. The caller must have set the
    handlers.
    """
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
