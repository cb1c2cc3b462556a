"""`vestal token`: print the token, which is made if there is none."""

import argparse

from vestal.config import Config, ensure_token


def run(options: argparse.Namespace, config: Config) -> int:
    print(ensure_token(config.home))
    return 0
