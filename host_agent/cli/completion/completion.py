"""`vestal completion`: print a completion script for bash, zsh or fish, made from the parser by shtab.

Names of models are read from the folder of installed models when a name is completed, which takes
milliseconds; asking the MLX server would take longer than a person waits for Tab.
"""

from __future__ import annotations

import argparse
import shlex

import shtab

from host_agent.cli import parser
from host_agent.cli.launch.programs import PROGRAMS
from host_agent.service_logs import LOG_FILES
from vestal.config import Config

MODEL_ARGUMENTS = (
    (("chat",), "model"),
    (("launch",), "model"),
    (("models", "pull"), "names"),
    (("models", "rm"), "names"),
)
"""The arguments that name models: the command, with its action if it has some, and the argument."""


def run(options: argparse.Namespace, config: Config) -> int:
    print(script(options.shell, config))
    return 0


def script(shell: str, config: Config) -> str:
    """Return the script for `shell`."""
    completed = parser.build()
    commands = _commands(completed)
    _argument(commands["logs"], "service").choices = tuple(LOG_FILES)
    _argument(commands["launch"], "program").choices = tuple(PROGRAMS)
    models = shtab.cmd(list_models_command(str(config.home.models)))
    for (command, *actions), argument in MODEL_ARGUMENTS:
        parsed = commands[command]
        for action in actions:
            parsed = _commands(parsed)[action]
        _argument(parsed, argument).complete = models  # type: ignore[attr-defined]
    return shtab.complete(completed, shell)


def list_models_command(folder: str) -> str:
    """Return a shell command that lists the installed models: `qwen3__8b` is the folder of `qwen3:8b`."""
    return f"ls {shlex.quote(folder)} 2>/dev/null | sed -e 's/__/:/' -e 's,--,/,g'"


def _commands(completed: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    for action in completed._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    raise AssertionError(f"{completed.prog} has no commands")


def _argument(command: argparse.ArgumentParser, name: str) -> argparse.Action:
    return next(action for action in command._actions if action.dest == name)
