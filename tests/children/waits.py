"""Run until SIGTERM, then exit with 0: waits.py [FILE that is created once it runs]"""

import pathlib
import signal
import sys

signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
if len(sys.argv) > 1:
    pathlib.Path(sys.argv[1]).touch()
while True:
    signal.pause()
