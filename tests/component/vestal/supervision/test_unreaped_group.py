"""A killed group whose orphans nobody reaps, as in a container without an init process."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from vestal.supervision import ProcessIdentity
from vestal.supervision.processes.process_group import kill_orphaned_group

# The program is the subreaper of its orphans, and reaps none.
PROGRAM = """
import asyncio, ctypes, os, signal, subprocess
from vestal.supervision.processes.process_group import wait_until_group_gone
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)
command = ["sh", "-c", "sleep 60 & echo $!; wait"]
leader = subprocess.Popen(command, start_new_session=True, stdout=subprocess.PIPE)
orphan = int(leader.stdout.readline())
print("alive:", asyncio.run(wait_until_group_gone(leader.pid, 0.05)))
os.kill(leader.pid, signal.SIGKILL)
leader.wait()
print("orphan alive:", asyncio.run(wait_until_group_gone(leader.pid, 0.05)))
os.kill(orphan, signal.SIGKILL)
print("zombie:", asyncio.run(wait_until_group_gone(leader.pid, 10)))
with open(f"/proc/{orphan}/stat") as stat:
    print(stat.read().split()[2])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="macOS itself tells a group of zombies from a living one")
def test_process_group_with_only_zombies_left_counts_as_ended():
    """Earlier, each restart waited half a second for the engine's template process, which was a zombie."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60)
    said = done.stdout.splitlines()
    assert said == ["alive: False", "orphan alive: False", "zombie: True", "Z"], done.stderr


def test_group_of_a_leader_that_ran_before_the_last_start_of_the_machine_is_not_killed():
    """On macOS, where there is no boot ID, a PID file of before a reboot counted as of this boot: a
    stranger's group that had got the number since was killed.
    """
    leader = subprocess.Popen(["sh", "-c", "sleep 60 & exit 0"], start_new_session=True)
    leader.wait()
    try:
        assert not kill_orphaned_group(ProcessIdentity(leader.pid, psutil.boot_time() - 86_400.0))
        os.killpg(leader.pid, 0)  # the stranger lives
        assert kill_orphaned_group(ProcessIdentity(leader.pid, time.time() - 1.0))
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(leader.pid, signal.SIGKILL)
