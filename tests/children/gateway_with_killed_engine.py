"""Run the real gateway and the real engine, with the relay `engine_that_is_killed.py` between them."""

import sys
from pathlib import Path

from mlx_server.gateway.main import main

RELAY = Path(__file__).with_name("engine_that_is_killed.py")

if __name__ == "__main__":
    sys.exit(main((sys.executable, str(RELAY))))
