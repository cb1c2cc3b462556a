"""`vestal agent`. Under a service manager, an agent that runs already is no failure to be retried."""

import argparse

from host_agent.agent import daemon
from host_agent.errors import AlreadyRunning
from vestal.config import Config


def run(options: argparse.Namespace, config: Config) -> int:
    try:
        return daemon.serve(config)
    except AlreadyRunning as error:
        if not options.managed:
            raise
        # launchd brings back what fails, every 10 s and without an end; the next pass starts a dead agent.
        print(f"vestal: {error}", flush=True)
        return 0
