"""`vestal models`: run the model store in a process of its own, because a conversion needs mlx."""

import argparse
import subprocess
import sys

from vestal.config import Config


def run(options: argparse.Namespace, config: Config) -> int:
    """Return the exit code of the model store. `pull` is another name for `ensure`."""
    config.home.prepare()
    action = "ensure" if options.action == "pull" else options.action
    command = [sys.executable, "-m", "mlx_server.model_store", action, *options.names]
    return subprocess.run(command, check=False).returncode
