"""Fork a grandchild that ignores SIGTERM into this process group, and write its PID to FILE.

leaves_grandchild.py FILE [CODE]: with CODE the program then exits and the grandchild lives on; else both
wait.
"""

import os
import pathlib
import signal
import sys

read_end, write_end = os.pipe()
grandchild = os.fork()
if grandchild == 0:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.write(write_end, b".")  # SIGTERM is ignored from here on
    while True:
        signal.pause()
os.read(read_end, 1)
fresh = pathlib.Path(sys.argv[1] + ".new")
fresh.write_text(str(grandchild))
fresh.rename(sys.argv[1])
if len(sys.argv) > 2:
    os._exit(int(sys.argv[2]))
while True:
    signal.pause()
