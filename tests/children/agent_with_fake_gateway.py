"""Run the real agent with `fake_gateway.py` in place of the gateway.

It requests no recovery pass by itself; a real agent's first pass might come in the middle of a test. With the
argument `--hands-over` the gateway is `stand_in_gateway.py`. SIGUSR1 has the agent wait without end for a
lock. With the argument `--with-watchdog` it has a watchdog, whose `vestal recover` starts the agent as a user
would, with the real gateway.
"""

from __future__ import annotations

import signal
import sys
import threading
from pathlib import Path

from host_agent.agent import background_loops, daemon
from host_agent.errors import HostAgentError
from host_agent.watchdog.child import AgentRestarter
from vestal.config import load

LOCK = threading.Lock()
FIRST_PASS_AFTER_S = 900.0
STAND_IN = "stand_in_gateway.py"
GATEWAY = (
    sys.executable,
    str(Path(__file__).with_name(STAND_IN if "--hands-over" in sys.argv else "fake_gateway.py")),
)


def deadlock(number: int, frame: object) -> None:
    LOCK.acquire()
    LOCK.acquire()


if __name__ == "__main__":
    signal.signal(signal.SIGUSR1, deadlock)
    background_loops.FIRST_PASS_AFTER_S = FIRST_PASS_AFTER_S
    restarter = AgentRestarter.WATCHDOG if "--with-watchdog" in sys.argv else AgentRestarter.NOBODY
    try:
        sys.exit(daemon.serve(load(), GATEWAY, restarter))
    except HostAgentError as error:
        print(f"vestal: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
