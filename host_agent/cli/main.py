"""Run one command of `vestal`. Every error ends as one sentence and an exit code, never as a traceback."""

import argparse
import contextlib
import errno
import functools
import importlib
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from typing import TextIO

from host_agent.cli import parser
from host_agent.cli.screen.styled import guarded_output

# As in sysexits.h: EX_SOFTWARE, EX_IOERR, EX_CONFIG; and what a shell gives for SIGINT.
SOFTWARE_EXIT_CODE, IO_ERROR_EXIT_CODE, CONFIG_EXIT_CODE = 70, 74, 78
INTERRUPTED_EXIT_CODE = 130
# If the settings are invalid, these run with the defaults, so that a mistake does not prevent a stop. In the
# state folder of a newer Vestal only `down` runs, which then deletes nothing.
RUN_WITHOUT_SETTINGS = ("down", "doctor", "incidents", "logs")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command that `arguments` (by default sys.argv) name, and return its exit code."""
    options = parser.parse(arguments)
    with guarded_output():
        try:
            return _run(options)
        except KeyboardInterrupt:
            end_of_line = "\n" if sys.stderr.isatty() else ""  # the terminal has written ^C on this line
            print_error(parser.COMMANDS[options.command].when_interrupted, before=end_of_line)
            return INTERRUPTED_EXIT_CODE
        finally:
            _discard_unwritable_output()


def _run(options: argparse.Namespace) -> int:
    """Run the command, and return its exit code. Report every exception but KeyboardInterrupt as a
    sentence.
    """
    with _interrupt_deferred():
        from host_agent.errors import HostAgentError
        from vestal.config import ConfigError, StateFolderRefused, defaults_at_home, load

    config, options.problems = None, ()
    try:
        try:
            config = load()
        except ConfigError as error:
            is_refused = isinstance(error, StateFolderRefused) and options.command != "down"
            if is_refused or options.command not in RUN_WITHOUT_SETTINGS:
                raise
            options.problems = error.problems
            if options.command != "doctor":  # the doctor reports the problems itself
                for problem in error.problems:
                    print_error(f"{problem} (going on with the defaults)")
            config = defaults_at_home()
        with _interrupt_deferred():
            module = importlib.import_module(f"host_agent.cli.{parser.COMMANDS[options.command].module}")
        code = int(module.run(options, config))
        with contextlib.suppress(BrokenPipeError):  # the reader of the pipe has ended, as `head` does
            _flush(sys.stdout)
        return code
    except ConfigError as error:
        for problem in error.problems:
            print_error(problem)
        return CONFIG_EXIT_CODE
    except HostAgentError as error:
        print_error(str(error))
        return error.exit_code
    except BrokenPipeError:
        return 0
    except OSError as error:
        print_error(_system_error_sentence(error))
        return IO_ERROR_EXIT_CODE
    except Exception as error:
        details = _write_traceback(config)
        print_error(f"{type(error).__name__}: {error} (this is a bug in Vestal; {details})")
        return SOFTWARE_EXIT_CODE


@contextlib.contextmanager
def _interrupt_deferred() -> Iterator[None]:
    """Defer Ctrl-C: if it is pressed inside the `with` block, raise KeyboardInterrupt when the block ends.

    A KeyboardInterrupt while modules are imported might be lost, because pydantic's C code prints it and goes
    on.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    interrupts: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: interrupts.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if interrupts:
        raise KeyboardInterrupt


def print_error(sentence: str, before: str = "") -> None:
    """Print `before`, then `vestal: ` and the error's sentence, to stderr. If stderr cannot be written, do
    nothing, because the exit code reports the failure too.
    """
    with contextlib.suppress(OSError):
        print(f"{before}vestal: {sentence}", file=sys.stderr, flush=True)


def _flush(stream: TextIO | None) -> None:
    """Write what the stream has in its buffer. `stream` is None if the process was started without it."""
    if stream is not None:
        stream.flush()


def _discard_unwritable_output() -> None:
    """Redirect stdout and stderr to /dev/null if what was printed to them cannot be written. Python would
    otherwise try again when it exits, print a traceback of its own, and replace the exit code by 120.
    """
    for stream in (sys.stdout, sys.stderr):
        try:
            _flush(stream)
        except (OSError, ValueError):
            with contextlib.suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _system_error_sentence(error: OSError) -> str:
    """Return a sentence about an error of the operating system, with the remedy."""
    where = error.filename or "the disk"
    if error.errno == errno.ENOSPC:
        place = f"for {where}" if error.filename else "on the disk"
        return f"There is no space left {place}: free some and run the same command again."
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        reason = error.strerror
        return f"{where} cannot be written or read ({reason}): change its owner, or set VESTAL_HOME."
    if error.errno in (errno.EEXIST, errno.ENOTDIR):
        return f"{where} is not a folder: move it away, or set VESTAL_HOME to another place."
    return f"{where}: {error.strerror or error}."


def _write_traceback(config: object) -> str:
    """Append the current exception's traceback to logs/vestal.log in the home folder of `config`, which is a
    Config, or None if the settings were not loaded. Return a clause for the error message that names this
    file or, if it was not written, a command that shows more.
    """
    from vestal.best_effort.files import make_private_folder

    try:
        path = config.home.logs / "vestal.log"  # type: ignore[attr-defined]
        make_private_folder(path.parent)
        with open(path, "a", opener=functools.partial(os.open, mode=0o600)) as file:
            file.write(traceback.format_exc())
    except (OSError, AttributeError):
        return "run `python -X dev -m host_agent.cli.main` to see more"
    return f"{path} has the details"


if __name__ == "__main__":
    sys.exit(main())
