"""`vestal server`: run the gateway and its engine in the foreground, without an agent."""

import argparse
import os
import sys

from host_agent.services import child_environment
from vestal.config import Config
from vestal.platform import log_rotation


def run(options: argparse.Namespace, config: Config) -> int:
    config.home.prepare()
    log_rotation.rotate(config.home.logs)  # also if the gateway cannot start
    command = [sys.executable, "-m", "mlx_server.gateway"]
    os.execve(sys.executable, command, {**os.environ, **gateway_environment(config)})


def gateway_environment(config: Config) -> dict[str, str]:
    """Return the environment variables for a gateway that runs without an agent. Such a gateway rotates the
    logs itself, because there is no agent that does.
    """
    return {**child_environment.common(config), log_rotation.VARIABLE: "1"}
