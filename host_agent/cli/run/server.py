"""`vestal server`: the gateway (and its engine) in the foreground, where the MLX server runs alone."""

import argparse
import os
import sys

from host_agent.services import child_environment
from vestal.config import Config
from vestal.platform import log_rotation


def run(options: argparse.Namespace, config: Config) -> int:
    config.home.prepare()
    log_rotation.rotate(config.home.logs)  # without an agent, nobody else does
    environment = {**os.environ, **child_environment.common(config)}
    command = [sys.executable, "-m", "mlx_server.gateway"]
    os.execve(sys.executable, command, environment)
