"""Run the real gateway with `fake_engine.py` as its engine, and as patient as `patient_gateway.py` can be."""

import sys
from pathlib import Path

from mlx_server.gateway.main import main
from tests.children.patient_gateway import be_patient

FAKE = Path(__file__).with_name("fake_engine.py")

if __name__ == "__main__":
    be_patient()
    sys.exit(main((sys.executable, str(FAKE))))
