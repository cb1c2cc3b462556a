"""Check a YAML file of agents: `python -m orchestrator.agents FILE` prints the first mistake and exits with
code 78.

The host's commands run this before they start the orchestrator, so that both apply the same rules.
"""

from __future__ import annotations

import sys
from pathlib import Path

from orchestrator.agents import agents
from orchestrator.errors import CONFIG_EXIT_CODE, ConfigError


def main(arguments: list[str]) -> int:
    """Check the YAML file of agents that the first argument names, by loading it. Return 0 if it is valid;
    otherwise print the first mistake in it, and return CONFIG_EXIT_CODE.
    """
    try:
        agents.load(Path(arguments[0]), chat_model="")
    except ConfigError as error:
        print(error.message)
        return CONFIG_EXIT_CODE
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
