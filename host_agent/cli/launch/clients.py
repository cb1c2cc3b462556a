"""Print as JSON how to connect each known program to the MLX server. The agent runs this for GET /clients."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Sequence
from typing import Any

from host_agent.cli.gateway import GatewayClient
from host_agent.cli.launch.installed import installed_language_models
from host_agent.cli.launch.models import InstalledModel
from host_agent.cli.launch.programs import PROGRAMS, Program, plan
from host_agent.errors import HostAgentError
from vestal.config import ConfigError, load

PLACEHOLDER = InstalledModel("MODEL", context_tokens=0, tools=False, size_bytes=0)


def main() -> int:
    """Find out how to connect each known program to the MLX server, and print the result as JSON, in the form
    in which the agent returns it for GET /clients. Return 0. If this fails, print a sentence that says why
    instead, and return 1.
    """
    try:
        gateway = GatewayClient(load())
        print(json.dumps(describe(installed_language_models(gateway), gateway.url)))
    except (ConfigError, HostAgentError) as error:
        print(f"vestal: {error}")
        return 1
    return 0


def describe(models: Sequence[InstalledModel], url: str) -> dict[str, Any]:
    """Return the body of GET /clients: the model that works with the most programs, and how to start each
    program with that model.

    `url` is the MLX server's address.
    """
    model = most_compatible(models)
    clients = [_client(name, program, model, url) for name, program in PROGRAMS.items()]
    return {"model": model.name if model else None, "clients": clients}


def most_compatible(models: Sequence[InstalledModel]) -> InstalledModel | None:
    """Return the model that works with the most programs; among equals a loaded one, then the largest.

    Return None if there is no model.
    """

    def merits(model: InstalledModel) -> tuple[int, bool, int, str]:
        fits = sum(not program.needs.lacking(model) for program in PROGRAMS.values())
        return fits, model.is_loaded, model.size_bytes, model.name

    return max(models, key=merits, default=None)


def _client(name: str, program: Program, model: InstalledModel | None, url: str) -> dict[str, Any]:
    planned = plan(program, model or PLACEHOLDER, url)
    variables = " ".join(f"{key}={shlex.quote(value)}" for key, value in planned.environment.items())
    lines = [f"export {variables}"] if variables else []
    lacking = program.needs.lacking(model) if model else "is not installed"
    notes = [f"Installed by: {program.install}."]
    if lacking:
        missing = f"{model.name} {lacking}" if model else "No language model is installed"
        notes.insert(0, f"It needs {program.needs}; {missing}.")
    return {
        "name": name,
        "title": program.title,
        "lines": [*lines, shlex.join(planned.command)],
        "note": " ".join(notes),
        "fits": not lacking,
    }


if __name__ == "__main__":
    sys.exit(main())
