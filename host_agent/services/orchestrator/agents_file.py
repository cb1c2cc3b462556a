"""Check the file that defines the orchestrator's agents, by the orchestrator's own rules.

This package must not import the orchestrator, so the check runs `python -m orchestrator.agents`.
"""

import asyncio
import sys
from pathlib import Path

from host_agent.services.child_environment import agents_file
from host_agent.services.orchestrator.mode import Mode
from vestal.config import Config
from vestal.platform import commands

CHECK = (sys.executable, "-m", "orchestrator.agents")
CONFIG_EXIT_CODE = 78
TIMEOUT_S = 20.0


def find_mistake(config: Config) -> str:
    """Return the first mistake in the file that defines the orchestrator's agents, with its line; "" if the
    file is valid or the orchestrator is switched off.
    """
    if config.orchestrator.mode == Mode.OFF:
        return ""
    return _mistake(commands.run(*CHECK, str(agents_file(config)), timeout_s=TIMEOUT_S))


class AgentsFileCheck:
    """Checks the file that defines the orchestrator's agents, and checks it again only after the file has
    changed.
    """

    def __init__(self, config: Config) -> None:
        self._file = agents_file(config)
        self._checked: tuple[object, str] = (None, "")

    async def find_mistake(self) -> str:
        """Return the first mistake in the file that defines the orchestrator's agents, with its line; "" if
        there is none or the file could not be checked.
        """
        stamp = await asyncio.to_thread(_stamp, self._file)
        if self._checked[0] != stamp:
            done = await commands.run_async(*CHECK, str(self._file), timeout_s=TIMEOUT_S)
            self._checked = (stamp, _mistake(done))
        return self._checked[1]


def _mistake(done: commands.CommandResult) -> str:
    """Return the mistake that a check of the file with the orchestrator's agents has found; "" if it found
    none or could not run. `done` is the result of the command CHECK; its exit code CONFIG_EXIT_CODE means
    that the last line of its output is the mistake.
    """
    lines = done.text.strip().splitlines()
    return lines[-1] if done.exit_code == CONFIG_EXIT_CODE and lines else ""


def _stamp(file: Path) -> object:
    try:
        status = file.stat()
    except OSError as error:
        return error.errno
    return (status.st_mtime_ns, status.st_size, status.st_ino)
