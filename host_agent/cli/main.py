"""`vestal`: dispatch; every error is one sentence and an exit code (sysexits.h), never a traceback."""

import errno
import importlib
import sys
import traceback
from collections.abc import Sequence

from host_agent.cli import parser

CONFIG_EXIT_CODE = 78
INTERRUPTED = 130
SOFTWARE_EXIT_CODE = 70
WITHOUT_SETTINGS = ("down", "doctor", "logs")  # a mistake in the file must not keep a stack running

ROOM_OF = {
    **dict.fromkeys(("up", "down", "recover", "agent", "server"), "run"),
    **dict.fromkeys(("status", "doctor", "logs", "models", "cache", "token", "version"), "inspect"),
    **dict.fromkeys(("install", "uninstall"), "install"),
    **dict.fromkeys(("task", "search"), "orchestrator"),
}
"""The folder of each command's module, which is imported when the command is given."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; its exit code."""
    options = parser.build().parse_args(arguments)
    from host_agent.errors import HostAgentError
    from vestal.config import ConfigError, defaults_at_home, load

    config, options.problems = None, ()
    try:
        try:
            config = load()
        except ConfigError as error:
            if options.command not in WITHOUT_SETTINGS:
                raise
            options.problems = error.problems
            if options.command != "doctor":  # it has its own words for them
                for problem in error.problems:
                    complain(f"{problem} (going on with the defaults)")
            config = defaults_at_home()
        module = importlib.import_module(f"host_agent.cli.{ROOM_OF[options.command]}.{options.command}")
        return int(module.run(options, config))
    except ConfigError as error:
        for problem in error.problems:
            complain(problem)
        return CONFIG_EXIT_CODE
    except HostAgentError as error:
        complain(str(error))
        return error.exit_code
    except KeyboardInterrupt:
        if options.command == "up":
            complain("Interrupted. What was started goes on: `make up` completes it, `make down` stops it.")
        return INTERRUPTED
    except BrokenPipeError:
        sys.stderr.close()  # the reader of our output left; there is nobody to tell
        return 0
    except OSError as error:
        complain(_of_system(error))
        return 74
    except Exception as error:
        complain(f"{type(error).__name__}: {error} (this is a fault of Vestal's; {_kept(config)})")
        return SOFTWARE_EXIT_CODE


def complain(sentence: str) -> None:
    print(f"vestal: {sentence}", file=sys.stderr)


def _of_system(error: OSError) -> str:
    where = error.filename or "the disk"
    if error.errno == errno.ENOSPC:
        return f"There is no space left for {where}: free some and run the same command again."
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"{where} may not be written or read ({error.strerror}): change its owner, or set VESTAL_HOME."
    if error.errno in (errno.EEXIST, errno.ENOTDIR):
        return f"{where} is not a folder: move it away, or set VESTAL_HOME to another place."
    return f"{where}: {error.strerror or error}."


def _kept(config: object) -> str:
    """Where the traceback went."""
    try:
        path = config.home.logs / "vestal.log"  # type: ignore[attr-defined]
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a") as file:
            file.write(traceback.format_exc())
    except (OSError, AttributeError):
        return "run `python -X dev -m host_agent.cli.main` to see more"
    return f"{path} has the details"


if __name__ == "__main__":
    sys.exit(main())
