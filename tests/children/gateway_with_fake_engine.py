"""Run the real gateway with `fake_engine.py` as its engine."""

import sys
from pathlib import Path

from mlx_server.gateway.main import main

FAKE = Path(__file__).with_name("fake_engine.py")

if __name__ == "__main__":
    sys.exit(main((sys.executable, str(FAKE))))
