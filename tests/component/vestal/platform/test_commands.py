"""Running commands, with real programs."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.processes import has_ended
from vestal.platform import commands
from vestal.platform.commands import NOT_FOUND, TIMED_OUT, CommandResult

BOTH_STREAMS = ("sh", "-c", "echo out; echo err >&2; exit 3")
SLEEP = (sys.executable, "-c", "import time; time.sleep(60)")
SLEEPING_CHILD = 'sleep 60 & echo $! > "$1"; wait'


async def test_run_and_run_async_return_both_streams_and_the_exit_code():
    expected = CommandResult(3, "out\nerr\n")
    assert commands.run(*BOTH_STREAMS) == await commands.run_async(*BOTH_STREAMS) == expected


async def test_run_and_run_async_of_a_missing_program_return_not_found():
    done = commands.run("no-such-program")
    assert done == await commands.run_async("no-such-program")
    assert done == CommandResult(NOT_FOUND, "no-such-program: No such file or directory")


async def test_run_and_run_async_of_a_slow_program_return_timed_out():
    done = commands.run(*SLEEP, timeout_s=0.2)
    assert done == await commands.run_async(*SLEEP, timeout_s=0.2)
    assert done == CommandResult(TIMED_OUT, "no answer within 0.2 s")


def test_command_output_is_english_stdout_without_stderr_and_is_none_if_the_program_failed(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    assert commands.output("sh", "-c", 'echo "$LC_ALL $NO_COLOR"; echo err >&2') == "C 1\n"
    assert commands.output(*BOTH_STREAMS) is None
    assert commands.output("no-such-program") is None
    assert commands.output(*SLEEP, timeout_s=0.2) is None


@pytest.mark.parametrize("ends_by", ["timeout", "cancellation"])
async def test_run_async_that_times_out_or_is_cancelled_kills_the_children_of_the_command(
    tmp_path: Path, ends_by: str
):
    """The command's child holds the pipe, so to wait for the command alone would take 60 s."""
    pid_file = tmp_path / "pid"
    command = ("sh", "-c", SLEEPING_CHILD, "sh", str(pid_file))
    if ends_by == "timeout":
        await _run_until_timeout(pid_file, *command)
    else:
        task = asyncio.create_task(commands.run_async(*command, timeout_s=60))
        await _until(lambda: _has_pid(pid_file))
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
    await _until(lambda: has_ended(int(pid_file.read_text())))


async def test_run_async_cancelled_while_it_starts_kills_the_children_of_the_command(tmp_path: Path):
    """On a busy machine the command may run before asyncio has noticed that it was started."""
    pid_file = tmp_path / "pid"
    task = asyncio.create_task(commands.run_async("sh", "-c", SLEEPING_CHILD, "sh", str(pid_file)))
    while not _has_pid(pid_file):
        await asyncio.sleep(0)  # lets the task begin
        time.sleep(0.05)  # noqa: ASYNC251 - keeps the loop from noticing what happens meanwhile
    task.cancel()
    done, _ = await asyncio.wait([task], timeout=30)
    assert done, "the command's child holds the pipe"
    await _until(lambda: has_ended(int(pid_file.read_text())))


@pytest.mark.parametrize("ends_by", ["timeout", "cancellation"])
async def test_command_that_ended_before_its_timeout_or_cancellation_leaves_no_background_process(
    tmp_path: Path, ends_by: str
):
    """The background process holds the output open. It once lived on, with a descriptor here, for 60 s."""
    pid_file = tmp_path / "pid"
    command = ("sh", "-c", 'sleep 60 & echo $! > "$1"', "sh", str(pid_file))
    before = _open_files()
    if ends_by == "timeout":
        await _run_until_timeout(pid_file, *command)
    else:
        task = asyncio.create_task(commands.run_async(*command, timeout_s=60))
        await _until(lambda: _has_pid(pid_file))
        task.cancel()
        await asyncio.wait([task])
    await _until(lambda: has_ended(int(pid_file.read_text())))
    await _until(lambda: _open_files() <= before)


async def test_command_whose_daemon_holds_the_output_open_leaves_no_descriptor_here(tmp_path: Path):
    """A daemon has left the command's process group, so it is not killed."""
    pid_file = tmp_path / "pid"
    daemon = (
        "import os, sys, time; os.setsid(); open(sys.argv[1], 'w').write(str(os.getpid())); time.sleep(60)"
    )
    command = ("sh", "-c", '"$1" -c "$2" "$3" &', "sh", sys.executable, daemon, str(pid_file))
    before = _open_files()
    await _run_until_timeout(pid_file, *command)
    await _until(lambda: _open_files() <= before)
    assert not has_ended(int(pid_file.read_text()))
    os.kill(int(pid_file.read_text()), signal.SIGKILL)


async def test_run_async_does_not_kill_a_background_process_that_a_finished_command_has_started(
    tmp_path: Path,
):
    pid_file = tmp_path / "pid"
    command = ("sh", "-c", 'sleep 60 > /dev/null 2>&1 & echo $! > "$1"', "sh", str(pid_file))
    assert await commands.run_async(*command) == commands.run("true") == CommandResult(0, "")
    assert not has_ended(int(pid_file.read_text()))
    os.kill(int(pid_file.read_text()), signal.SIGKILL)


def _open_files() -> int:
    return len(os.listdir("/dev/fd"))


async def _until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not holds():  # noqa: ASYNC110 - what happens in other processes sets no event here
            await asyncio.sleep(0.01)


def _has_pid(file: Path) -> bool:
    return file.exists() and file.read_text() != ""


async def _run_until_timeout(pid_file: Path, *command: str) -> None:
    """Run a command, which writes a PID to `pid_file` and does not end, until its timeout. Run it again, with
    a longer timeout, if the machine was too busy to let it write the PID in time.
    """
    for timeout_s in (1, 5, 30):
        assert (await commands.run_async(*command, timeout_s=timeout_s)).exit_code == TIMED_OUT
        if _has_pid(pid_file):
            return
    raise AssertionError(f"the command wrote no PID within {timeout_s} s")


async def test_command_that_a_killed_program_was_running_ends_with_the_program(tmp_path: Path):
    """In a session of its own, a hung command of the doctor would outlive the doctor that the agent ends."""
    pid_file = tmp_path / "pid"
    inner = ("sh", "-c", 'echo $$ > "$1"; sleep 60; true', "sh", str(pid_file))
    program = "import sys\nfrom vestal.platform import commands\ncommands.run(*sys.argv[1:], timeout_s=60)"
    await _run_until_timeout(pid_file, sys.executable, "-c", program, *inner)
    await _until(lambda: has_ended(int(pid_file.read_text())))
