"""A supervisor without a free descriptor neither ends nor forgets a healthy process."""

from __future__ import annotations

import subprocess
import sys

# The programs run in processes of their own, because each uses up all descriptors of its process.
BEGINNING = """
import asyncio, os, resource, signal
from vestal.supervision import ChildSpec, spawn, start_time
from vestal.supervision.processes.process_group import adopt, kill_orphaned_group, wait_until_group_gone

fillers = []

def fill():
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    try:
        while True:
            fillers.append(os.open("/dev/null", os.O_RDONLY))
    except OSError:
        pass

def drain():
    while fillers:
        os.close(fillers.pop())
"""


def printed(program: str) -> list[str]:
    """Return the lines that the program prints after BEGINNING."""
    command = [sys.executable, "-c", BEGINNING + program]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_process_watched_without_a_free_descriptor_lives_and_its_later_end_is_noticed():
    """It once counted as ended, and was killed."""
    program = """
async def main():
    for handle_of in (lambda group: group, lambda group: adopt(group.identity)):
        group = await spawn(ChildSpec("x", ("sleep", "60")))
        handle = handle_of(group)
        fill()
        waiting = asyncio.create_task(handle.wait())
        await asyncio.sleep(0.2)
        drain()
        print("ended:", waiting.done(), "lives:", start_time(group.pid) is not None)
        os.kill(group.pid, signal.SIGTERM)
        print((await waiting).describe())

asyncio.run(main())
"""
    assert printed(program) == ["ended: False lives: True", "killed by SIGTERM"] * 2


def test_wait_for_the_end_of_a_process_group_without_a_free_descriptor_times_out_and_raises_nothing():
    """It once raised OSError, so an adopted child that had ended was not restarted."""
    program = """
async def main():
    group = await spawn(ChildSpec("x", ("sleep", "60")))
    fill()
    print("gone:", await wait_until_group_gone(group.pid, 0.1))
    drain()
    group.kill()
    print((await group.wait()).describe(), "gone:", await wait_until_group_gone(group.pid, 10))

asyncio.run(main())
"""
    assert printed(program) == ["gone: False", "killed by SIGKILL gone: True"]


def test_process_about_which_nothing_can_be_read_counts_as_alive_and_its_group_is_not_killed():
    program = """
async def main():
    group = await spawn(ChildSpec("x", ("sleep", "60")))
    fill()
    print("alive:", group.identity.alive(), "killed:", kill_orphaned_group(group.identity))
    drain()
    print("lives:", start_time(group.pid) is not None)
    group.kill()
    await group.wait()
    print("alive:", group.identity.alive())

asyncio.run(main())
"""
    assert printed(program) == ["alive: True killed: False", "lives: True", "alive: False"]
