"""`vestal models`: what the model store does, in a process of its own (it may need mlx to convert)."""

import argparse
import subprocess
import sys

from vestal.config import Config


def run(options: argparse.Namespace, config: Config) -> int:
    config.home.prepare()
    what = "ensure" if options.what == "pull" else options.what
    command = [sys.executable, "-m", "mlx_server.model_store", what, *options.names]
    return subprocess.run(command, check=False).returncode
