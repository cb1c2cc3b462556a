"""Gateways that take over from each other, with a listening socket that outlives them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from vestal.supervision.handover.successor import READY_FD_VARIABLE, SUCCEEDS_VARIABLE
from vestal.web.acceptor import bind
from vestal.web.listening_sockets import FDS_VARIABLE, fds_value


class Gateways:
    """One gateway after another, all with the same listening socket, as the agent starts them."""

    def __init__(self, gateway: Any) -> None:
        self.gateway = gateway
        self.listening = bind("127.0.0.1", gateway.port)
        self.all: list[subprocess.Popen[bytes]] = []

    def start(self) -> subprocess.Popen[bytes]:
        """Start a gateway, as a successor if there is one already, and return it when it is ready."""
        reading, writing = os.pipe()
        os.set_inheritable(writing, True)
        env = self.gateway.env | {FDS_VARIABLE: fds_value([self.listening]), READY_FD_VARIABLE: str(writing)}
        if self.all:
            env[SUCCEEDS_VARIABLE] = str(self.all[-1].pid)
        os.set_inheritable(self.listening.fileno(), True)
        with (self.gateway.home / "gateway.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, *self.gateway.program],
                env=env,
                cwd=self.gateway.home,
                stdout=log,
                stderr=log,
                close_fds=False,
            )
        self.all.append(process)
        os.close(writing)
        with os.fdopen(reading) as reports:
            assert reports.readline() == "ready\n"
        return process

    def replace(self) -> None:
        old = self.all[-1]
        self.start()
        old.send_signal(signal.SIGUSR1)

    def kill(self) -> None:
        """Kill the gateway (SIGKILL) and start another one, which the clients wait for."""
        gateway = self.all.pop()
        gateway.kill()
        gateway.wait()
        self.start()

    def end(self) -> None:
        for process in self.all:
            if process.poll() is None:
                process.terminate()
        for process in self.all:
            process.wait(60)
        self.listening.close()


@contextmanager
def serving(gateway: Any) -> Iterator[Gateways]:
    """Start a gateway on a socket that outlives it, and end it and its successors afterwards."""
    gateways = Gateways(gateway)
    try:
        gateways.start()
        gateway.until_ok()
        yield gateways
    finally:
        gateways.end()
