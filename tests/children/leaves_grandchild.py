"""Forks a grandchild in its own group that ignores SIGTERM, and writes its PID to FILE.

leaves_grandchild.py FILE [CODE]: with CODE it then exits and leaves the grandchild; else it waits.
"""

import os
import pathlib
import signal
import sys

told, go = os.pipe()
grandchild = os.fork()
if grandchild == 0:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.write(go, b".")
    while True:
        signal.pause()
os.read(told, 1)
fresh = pathlib.Path(sys.argv[1] + ".new")
fresh.write_text(str(grandchild))
fresh.rename(sys.argv[1])
if len(sys.argv) > 2:
    os._exit(int(sys.argv[2]))
while True:
    signal.pause()
