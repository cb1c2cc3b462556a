"""Ignore SIGTERM, and create FILE once it is ignored: ignores_term.py FILE"""

import pathlib
import signal
import sys

signal.signal(signal.SIGTERM, signal.SIG_IGN)
pathlib.Path(sys.argv[1]).touch()
while True:
    signal.pause()
