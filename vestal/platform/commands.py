"""Run the platform's own tools and service managers. With `--dry-run`, a change is only printed.

The modules of `vestal.platform.macos`, `kernel_log` and `processes.ps` parse what the tools print.
"""

import asyncio
import contextlib
import os
import signal
import subprocess
from asyncio.subprocess import Process
from collections.abc import Mapping
from dataclasses import dataclass

NOT_FOUND = 127  # the exit code that a shell gives for a program it cannot find
TIMED_OUT = 124  # the exit code of timeout(1)

TIMEOUT_S = 10.0
ASK_TIMEOUT_S = 20.0
ACT_TIMEOUT_S = 180.0  # stopping the MLX server waits for its drain and for the six stages of its shutdown
KILL_TIMEOUT_S = 1.0
_STREAM_LIMIT_BYTES = 64 * 1024  # how much output is read ahead, as in asyncio
# Parsers expect English without colors, and Homebrew would first update itself.
PLAIN_OUTPUT = {"LC_ALL": "C", "HOMEBREW_NO_AUTO_UPDATE": "1", "NO_COLOR": "1"}


@dataclass(frozen=True)
class CommandResult:
    """A command's exit code and, in `text`, its output.

    If the command could not be started, the exit code is NOT_FOUND; if it took too long and was killed, the
    exit code is TIMED_OUT. In both cases, `text` is the reason.
    """

    exit_code: int
    text: str


def run(*command: str, timeout_s: float = TIMEOUT_S) -> CommandResult:
    """Run a command and return its stdout and stderr together.

    The exit code is NOT_FOUND for a missing program, and TIMED_OUT for a command that was killed because it
    took longer than `timeout_s`.
    """
    return _run(command, timeout_s, subprocess.STDOUT)


def output(*command: str, timeout_s: float = TIMEOUT_S) -> str | None:
    """Return what a command prints to stdout, in English; None if it is missing, fails, or takes too long."""
    done = _run(command, timeout_s, subprocess.PIPE, {**os.environ, **PLAIN_OUTPUT})
    return done.text if done.exit_code == 0 else None


async def run_async(
    *command: str,
    timeout_s: float = TIMEOUT_S,
    env: Mapping[str, str] | None = None,
    stdin: bytes | None = None,
) -> CommandResult:
    """Run a command without blocking the event loop, and return its exit code, and its stdout and stderr
    together. The exit code is NOT_FOUND for a missing program, and TIMED_OUT for a command that was killed
    because it took longer than `timeout_s`.

    `env` is the command's whole environment; None: that of this process. `stdin` is the command's input;
    None: an empty one.

    After `timeout_s`, or when the caller is cancelled, the command and everything it started are killed, even
    if the command itself has ended: what it started in the background may still hold its output open.
    """
    try:
        process, transport = await _start(command, env, stdin is not None)
    except OSError as error:
        return _not_found(command, error)
    try:
        async with asyncio.timeout(timeout_s):
            printed, _ = await process.communicate(stdin)
    except TimeoutError:
        await _abandon(process, transport)
        return _timed_out(timeout_s)
    except BaseException:
        await _abandon(process, transport)
        raise
    return CommandResult(process.returncode or 0, printed.decode(errors="replace"))


class Commands:
    """Runs commands: `ask` runs those that only read, `act` those that change something. `dry_run` says
    whether the latter are only printed.
    """

    dry_run = False

    def ask(self, *command: str) -> CommandResult:
        """Run a command that changes nothing, also in a dry run, and return its result.

        A command that is missing, fails, or is killed after ASK_TIMEOUT_S raises nothing; its exit code is
        not 0.
        """
        return run(*command, timeout_s=ASK_TIMEOUT_S)

    def act(self, *command: str) -> CommandResult:
        """Run a command that changes something, and return its result.

        A command that is missing, fails, or is killed after ACT_TIMEOUT_S raises nothing; its exit code is
        not 0.
        """
        return run(*command, timeout_s=ACT_TIMEOUT_S)


class DryRunCommands(Commands):
    """Runs the commands that only read, and prints those that would change something."""

    dry_run = True

    def act(self, *command: str) -> CommandResult:
        """Print the command and return success."""
        print(f"would run {' '.join(command)}")
        return CommandResult(0, "")


def _run(
    command: tuple[str, ...], timeout_s: float, stderr: int, env: Mapping[str, str] | None = None
) -> CommandResult:
    """Run a command with empty input, and return its exit code and its stdout. `stderr` is that argument of
    `subprocess.run`: with STDOUT, the result contains stderr too; with PIPE, stderr is dropped. `env` is the
    command's whole environment; None: that of this process.

    The command stays in the process group of this process. A signal that ends the group therefore ends the
    command too: SIGINT after Ctrl-C, or the SIGKILL by which the agent ends a run of `vestal doctor` that
    takes too long. After `timeout_s`, only the command itself is killed, not what it has started. The exit
    code is then TIMED_OUT; it is NOT_FOUND if the command could not be started.
    """
    try:
        done = subprocess.run(
            command,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
            encoding="utf-8",
            errors="replace",
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return _timed_out(timeout_s)
    except OSError as error:
        return _not_found(command, error)
    return CommandResult(done.returncode, done.stdout)


async def _start(
    command: tuple[str, ...], env: Mapping[str, str] | None, has_input: bool
) -> tuple[Process, asyncio.SubprocessTransport]:
    """Start the command as the leader of its own process group. Return the process, and the transport of its
    pipes.

    If the caller is cancelled meanwhile, the command and everything it has started are killed. asyncio itself
    would kill the command only.
    """
    loop = asyncio.get_running_loop()
    # As asyncio.create_subprocess_exec does, which does not return the transport.
    starting = asyncio.ensure_future(
        loop.subprocess_exec(
            lambda: asyncio.subprocess.SubprocessStreamProtocol(_STREAM_LIMIT_BYTES, loop),
            *command,
            env=env,
            stdin=asyncio.subprocess.PIPE if has_input else asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
    )
    try:
        transport, protocol = await asyncio.shield(starting)
    except asyncio.CancelledError:
        with contextlib.suppress(OSError):
            transport, protocol = await starting
            await _abandon(Process(transport, protocol, loop), transport)
        raise
    return Process(transport, protocol, loop), transport


def _timed_out(timeout_s: float) -> CommandResult:
    return CommandResult(TIMED_OUT, f"no answer within {timeout_s:g} s")


def _not_found(command: tuple[str, ...], error: OSError) -> CommandResult:
    return CommandResult(NOT_FOUND, f"{command[0]}: {error.strerror}")


async def _abandon(process: Process, transport: asyncio.SubprocessTransport) -> None:
    """Kill the command's process group, wait for the command at most KILL_TIMEOUT_S, and close the pipes. The
    pipes would not close by themselves if a process that has left the group holds their other ends.
    """
    _kill_group(process.pid, process.returncode)
    try:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(KILL_TIMEOUT_S):
                await process.wait()
    finally:
        transport.close()


def _kill_group(leader: int, returncode: int | None) -> None:
    """Send SIGKILL to a command and everything it has started: the process group whose number is the
    command's PID, `leader`. `returncode` is None if the command has not been reaped. If it was reaped, and
    another process has its PID by now, do nothing, because the group may be that process's.
    """
    with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS: EPERM for a group of zombies
        if returncode is None or not _exists(leader):
            os.killpg(leader, signal.SIGKILL)


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except OSError as error:
        return not isinstance(error, ProcessLookupError)  # PermissionError: it is another user's
    return True
