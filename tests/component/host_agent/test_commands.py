"""The runner of platform tools, with real programs."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from vestal.platform import commands
from vestal.platform.commands import NOT_FOUND, TIMED_OUT, CommandResult

BOTH = ("sh", "-c", "echo out; echo err >&2; exit 3")
LASTS = "import time; time.sleep(60)"
PARENT = 'sleep 60 & echo $! > "$1"; wait'


async def test_run_gives_both_outputs_and_the_exit_code_either_way():
    assert commands.run(*BOTH) == await commands.run_async(*BOTH) == CommandResult(3, "out\nerr\n")


async def test_run_of_no_such_program_is_a_sentence_either_way():
    done = commands.run("no-such-program")
    assert done == await commands.run_async("no-such-program")
    assert done == CommandResult(NOT_FOUND, "no-such-program: No such file or directory")


async def test_run_past_its_time_is_no_answer_either_way():
    lasting = (sys.executable, "-c", LASTS)
    done = commands.run(*lasting, timeout_s=0.2)
    assert done == await commands.run_async(*lasting, timeout_s=0.2)
    assert done == CommandResult(TIMED_OUT, "no answer within 0.2 s")


def test_output_is_what_a_tool_says_in_english_and_nothing_where_it_failed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    assert commands.output("sh", "-c", 'echo "$LC_ALL $NO_COLOR"; echo err >&2') == "C 1\n"
    assert commands.output(*BOTH) is None
    assert commands.output("no-such-program") is None
    assert commands.output(sys.executable, "-c", LASTS, timeout_s=0.2) is None


@pytest.mark.parametrize("ends_by", ["its time", "nobody waiting"])
async def test_run_async_ends_what_the_command_has_started(tmp_path: Path, ends_by: str):
    """The grandchild holds the pipe: to wait for the command alone would take as long as it does."""
    noted = tmp_path / "pid"
    timeout_s = 2.0 if ends_by == "its time" else 60.0
    command = ("sh", "-c", PARENT, "sh", str(noted))
    task = asyncio.create_task(commands.run_async(*command, timeout_s=timeout_s))
    await _until(lambda: noted.exists() and noted.read_text() != "")
    if ends_by == "nobody waiting":
        task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        assert (await task).exit_code == TIMED_OUT
    await _until(lambda: not _lives(int(noted.read_text())))


async def _until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not holds():  # noqa: ASYNC110 - what happens in other processes sets no event here
            await asyncio.sleep(0.01)


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{pid}/stat")
    return not status.exists() or status.read_text().rpartition(")")[2].split()[0] != "Z"
