"""Runs the platform's own tools and service managers; with `--dry-run` what would change is only shown.

What they print is told by parsers beside this file.
"""

import asyncio
import contextlib
import os
import signal
import subprocess
from asyncio.subprocess import Process
from collections.abc import Mapping

from vestal.platform.command_result import NO_ANSWER, NOT_FOUND, CommandResult

WITHIN_S = 10.0
ASK_WITHIN_S = 20.0
ACT_WITHIN_S = 180.0  # a stop waits for the drain and the six stages
KILLED_WITHIN_S = 1.0
PLAIN = {"LC_ALL": "C", "HOMEBREW_NO_AUTO_UPDATE": "1", "NO_COLOR": "1"}


def run(*command: str, within_s: float = WITHIN_S) -> CommandResult:
    """Both its outputs. NOT_FOUND where there is no such program, NO_ANSWER past its time (it is killed)."""
    return _run(command, within_s, subprocess.STDOUT)


def output(*command: str, within_s: float = WITHIN_S) -> str | None:
    """What it prints to stdout, in English; None where there is no such tool, it failed, or took too long."""
    done = _run(command, within_s, subprocess.PIPE, {**os.environ, **PLAIN})
    return done.text if done.exit_code == 0 else None


async def run_async(*command: str, within_s: float = WITHIN_S) -> CommandResult:
    """As `run`. Past its time, or where nobody waits for it any more, all that it started is killed."""
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
    except OSError as error:
        return _not_found(command, error)
    try:
        async with asyncio.timeout(within_s):
            told, _ = await process.communicate()
    except TimeoutError:
        return _no_answer(within_s)
    finally:
        await _kill(process)
    return CommandResult(process.returncode or 0, told.decode(errors="replace"))


class Commands:
    """Runs them."""

    dry = False

    def ask(self, *command: str) -> CommandResult:
        """A command that only looks."""
        return run(*command, within_s=ASK_WITHIN_S)

    def act(self, *command: str) -> CommandResult:
        """A command that changes something."""
        return run(*command, within_s=ACT_WITHIN_S)


class Shown(Commands):
    """Asks, and says what it would do."""

    dry = True

    def act(self, *command: str) -> CommandResult:
        print(f"would run {' '.join(command)}")
        return CommandResult(0, "")


def _run(
    command: tuple[str, ...], within_s: float, errors: int, env: Mapping[str, str] | None = None
) -> CommandResult:
    try:
        done = subprocess.run(
            command,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            encoding="utf-8",
            errors="replace",
            timeout=within_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return _no_answer(within_s)
    except OSError as error:
        return _not_found(command, error)
    return CommandResult(done.returncode, done.stdout)


def _no_answer(within_s: float) -> CommandResult:
    return CommandResult(NO_ANSWER, f"no answer within {within_s:g} s")


def _not_found(command: tuple[str, ...], error: OSError) -> CommandResult:
    return CommandResult(NOT_FOUND, f"{command[0]}: {error.strerror}")


async def _kill(process: Process) -> None:
    """Its group: a child of its own that holds the pipe would keep `wait` from returning."""
    if process.returncode is not None:
        return
    with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS: EPERM for zombies only
        os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(KILLED_WITHIN_S):
            await process.wait()
