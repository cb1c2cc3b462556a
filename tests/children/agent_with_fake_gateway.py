"""Run the real agent with `fake_gateway.py` in place of the gateway."""

from __future__ import annotations

import sys
from pathlib import Path

from host_agent.agent import daemon
from host_agent.errors import HostAgentError
from vestal.config import load

GATEWAY = (sys.executable, str(Path(__file__).with_name("fake_gateway.py")))

if __name__ == "__main__":
    try:
        sys.exit(daemon.serve(load(), GATEWAY))
    except HostAgentError as error:
        print(f"vestal: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
