"""`vestal launch`: list the known programs, show how one is connected to the MLX server, or start it.

No file is written: the program gets its settings by environment variables and arguments.
"""

import argparse
import difflib
import json
import os
import shlex
import sys
from typing import Any

from host_agent.cli.gateway import GatewayClient
from host_agent.cli.launch.installed import installed_language_models
from host_agent.cli.launch.models import InstalledModel, best, why_none_fits
from host_agent.cli.launch.programs import PROGRAMS, Plan, Program, plan
from host_agent.cli.table import Column, print_table
from host_agent.errors import NoFittingModel, UnknownProgram
from host_agent.services.find_program import find_program
from vestal.config import Config
from vestal.config.model_names import find_named

NOT_INSTALLED_EXIT_CODE = 127  # the exit code of a shell for a command that is not found
USER_FOLDERS = ("~/.local/bin", "~/.opencode/bin")
COLUMNS = (Column("name"), Column("program"), Column("installed"), Column("needs", wraps=True))


def run(options: argparse.Namespace, config: Config) -> int:
    if options.program is None:
        _print_programs(options.json)
        return 0
    program = _known(options.program)
    gateway = GatewayClient(config)
    url = gateway.url
    model = _choose(program, options.model, installed_language_models(gateway))
    planned = plan(program, model, url, tuple(options.arguments))
    path = _find(program)
    if options.json:
        print(json.dumps(_as_json(options.program, model, planned, path), indent=2))
        return 0
    if options.show:
        _print_plan(program, model, planned)
        return 0
    if path is None:
        _print_plan(program, model, planned)
        sentence = f"{program.command[0]} is not installed. To install it: {program.install}."
        print(f"vestal: {sentence}", file=sys.stderr)
        return NOT_INSTALLED_EXIT_CODE
    print(f"{program.title} with {model.name} at {url}", file=sys.stderr)
    sys.stdout.flush()
    os.execve(path, planned.command, os.environ | planned.environment)


def _known(name: str) -> Program:
    if name in PROGRAMS:
        return PROGRAMS[name]
    close = difflib.get_close_matches(name, PROGRAMS, n=1)
    hint = f"did you mean {close[0]}?" if close else f"there are: {', '.join(PROGRAMS)}."
    raise UnknownProgram(f"No program is called {name!r}: {hint}")


def _choose(program: Program, wanted: str | None, models: list[InstalledModel]) -> InstalledModel:
    """Return the model that the user named or, if `wanted` is None, the model that fits the program best. A
    named model that does not meet the program's needs only causes a warning.

    Raises NoFittingModel if no model has the given name or, if no name is given, none fits.
    """
    if wanted is None:
        chosen = best(models, program.needs)
        if chosen is None:
            raise NoFittingModel(why_none_fits(program.title, models, program.needs))
        return chosen
    named = find_named(wanted, models, lambda model: model.name)
    if named is None:
        there = ", ".join(model.name for model in models) or "none"
        raise NoFittingModel(f"No language model is called {wanted!r}; there are: {there}.")
    if lacking := program.needs.lacking(named):
        warning = f"{named.name} {lacking}, and {program.title} needs {program.needs}"
        print(f"vestal: {warning}: it may fail.", file=sys.stderr)
    return named


def _find(program: Program) -> str | None:
    return find_program(program.command[0], [os.path.expanduser(folder) for folder in USER_FOLDERS])


def _print_programs(as_json: bool) -> None:
    found = {name: _find(program) for name, program in PROGRAMS.items()}
    if as_json:
        rows = [
            {
                "name": name,
                "title": program.title,
                "path": found[name],
                "install": program.install,
                "context_tokens": program.needs.context_tokens,
                "tools": program.needs.tools,
            }
            for name, program in PROGRAMS.items()
        ]
        print(json.dumps(rows, indent=2))
        return
    print_table(
        COLUMNS,
        [
            (name, program.title, found[name] or "no", str(program.needs))
            for name, program in PROGRAMS.items()
        ],
    )


def _as_json(name: str, model: InstalledModel, planned: Plan, path: str | None) -> dict[str, Any]:
    return {
        "name": name,
        "path": path,
        "model": model.name,
        "context_tokens": model.context_tokens,
        "environment": planned.environment,
        "command": planned.command,
        "configuration_file": PROGRAMS[name].configuration_file,
        "configuration": planned.configuration,
    }


def _print_plan(program: Program, model: InstalledModel, planned: Plan) -> None:
    """Print shell lines that do what `vestal launch` does: set the environment variables of `planned`, and
    start the program. If `planned` has a text for the program's own configuration file, also print this text
    and the file's name, as shell comments. In that file, the text connects the program to the model
    permanently.
    """
    print(f"# {program.title} with {model.name} ({model.context_tokens:,} tokens of context)")
    for name, value in planned.environment.items():
        print(f"export {name}={shlex.quote(value)}")
    print(shlex.join(planned.command))
    if planned.configuration:
        print(f"\n# To keep it, add to {program.configuration_file}:")
        for line in planned.configuration.splitlines():
            print(f"#   {line}".rstrip())
