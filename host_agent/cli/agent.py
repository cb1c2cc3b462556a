"""`vestal agent`."""

import argparse

from host_agent import daemon
from host_agent.config import Config


def run(options: argparse.Namespace, config: Config) -> int:
    return daemon.serve(config)
