"""`vestal version`: print Vestal's version."""

import argparse

from host_agent import VERSION
from vestal.config import Config


def run(options: argparse.Namespace, config: Config) -> int:
    print(f"vestal {VERSION}")
    return 0
