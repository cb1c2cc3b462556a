"""A signal that stops the agent is not lost while the agent replaces its own program."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

NEW_PROGRAM = """
import signal, time
signal.signal(signal.SIGTERM, lambda *_: print("received") or exit(0))
signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
time.sleep(2)
print("lost")
"""

OLD_PROGRAM = """
import asyncio, os, signal, sys
from concurrent.futures import ThreadPoolExecutor
from host_agent.agent.handed_over import STOP_SIGNALS, HandedOver, end_threads

async def main():
    loop = asyncio.get_running_loop()
    loop.set_default_executor(pool := ThreadPoolExecutor())
    loop.add_signal_handler(signal.SIGTERM, lambda: None)
    await asyncio.gather(*(asyncio.to_thread(os.getpid) for _ in range(4)))
    await end_threads(pool)
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    os.kill(os.getpid(), signal.SIGTERM)
    HandedOver().execute([sys.executable, "-c", sys.argv[1]], os.environ)

asyncio.run(main())
"""


def test_stop_signal_that_comes_just_before_the_agent_is_replaced_reaches_the_new_program():
    """An idle thread of the old program once took the signal, and the agent ran on."""
    command = [sys.executable, "-c", OLD_PROGRAM, NEW_PROGRAM]
    root = Path(__file__).parents[4]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=60)
    assert (done.stdout.strip(), done.returncode) == ("received", 0), done.stderr
