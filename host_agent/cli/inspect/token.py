"""`vestal token`: print the token that requests to the agent and the orchestrator need; create it first if it
does not exist.
"""

import argparse

from vestal.config import Config, ensure_token


def run(options: argparse.Namespace, config: Config) -> int:
    print(ensure_token(config.home))
    return 0
