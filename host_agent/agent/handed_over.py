"""What the agent passes to the program that replaces it in its own process: sockets, the lock, and a report.

`execve` keeps the PID, the children, and each descriptor that is made inheritable. One environment variable
names these, and the next program takes it out of its environment before it starts any child.
"""

import json
import os
import signal
import socket
from collections.abc import MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

from vestal.web.listening_sockets import InheritedSockets

VARIABLE = "VESTAL_AGENT_INHERITS"
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


@dataclass
class HandedOver:
    """What the last program of this process has left, or nothing.

    `listening` are the sockets of the listener and of the gateway. `lock` is the descriptor of the lock on
    the home. `report` is how far the upgrade has come.
    """

    listening: list[socket.socket] = field(default_factory=list)
    lock: int | None = None
    report: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def from_environment(cls, environment: MutableMapping[str, str] = os.environ) -> "HandedOver":
        """Read the variable and remove it. A descriptor that is not what the variable says is left alone."""
        try:
            fields = json.loads(environment.pop(VARIABLE, "") or "{}")
            sockets = InheritedSockets.of_descriptors(int(fd) for fd in fields.get("sockets", ()))
            lock = fields.get("lock")
            return cls(sockets, None if lock is None else int(lock), dict(fields.get("report", {})))
        except (ValueError, TypeError, AttributeError):
            return cls()

    def sockets(self) -> InheritedSockets:
        """Return the sockets by address and port."""
        return InheritedSockets(self.listening)

    def execute(self, command: Sequence[str], environment: MutableMapping[str, str]) -> NoReturn:
        """Replace this program by `command`. Raises OSError if that is impossible.

        The caller has blocked the signals to stop: one that arrives before the new program handles it waits.
        """
        kept = [each.fileno() for each in self.listening]
        named = {"sockets": kept, "lock": self.lock, "report": self.report}
        for descriptor in (*kept, *(() if self.lock is None else (self.lock,))):
            os.set_inheritable(descriptor, True)
        os.execve(command[0], list(command), {**environment, VARIABLE: json.dumps(named)})


def accept_stop_signals() -> None:
    """Let the signals through that were held back while the program was replaced, once they have handlers."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
