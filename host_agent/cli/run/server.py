"""`vestal server`: run the gateway and its engine in the foreground, without an agent."""

import argparse
import os
import sys

from host_agent.services import child_environment
from vestal.config import Config
from vestal.platform import log_rotation


def run(options: argparse.Namespace, config: Config) -> int:
    config.home.prepare()
    log_rotation.rotate(config.home.logs)  # otherwise the agent does this
    environment = {**os.environ, **child_environment.common(config)}
    command = [sys.executable, "-m", "mlx_server.gateway"]
    os.execve(sys.executable, command, environment)
