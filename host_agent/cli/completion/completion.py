"""`vestal completion`: print a completion script for bash, zsh or fish, which the package shtab generates
from the parser.

The names of models are read from the folder of installed models when a person presses Tab, which takes
milliseconds; asking the MLX server would take too long.
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
"""The arguments that name models: pairs of a command, with its action if it has one, and an argument."""


def run(options: argparse.Namespace, config: Config) -> int:
    print(script(options.shell, config))
    return 0


def script(shell: str, config: Config) -> str:
    """Return the completion script for `shell`, which is bash, zsh or fish."""
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
    """Return a shell command that prints the names of the models that are installed in `folder`.

    The command turns the name of each model's folder, such as `qwen3__8b`, into the model's name `qwen3:8b`.
    """
    return f"ls {shlex.quote(folder)} 2>/dev/null | sed -e 's/__/:/' -e 's,--,/,g'"


def _commands(completed: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    for action in completed._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    raise AssertionError(f"{completed.prog} has no commands")


def _argument(command: argparse.ArgumentParser, name: str) -> argparse.Action:
    return next(action for action in command._actions if action.dest == name)
