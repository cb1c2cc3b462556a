"""`vestal models`: run the requested action, a module of this package, and report its errors."""

import argparse
import importlib
import logging
import sys

from host_agent.errors import HostAgentError
from mlx_server.model_store.errors import ModelStoreError
from vestal.config import Config


class ModelRefused(HostAgentError):
    """The model store cannot do what was requested. The message says why, and the remedy."""

    code = "model_refused"


def run(options: argparse.Namespace, config: Config) -> int:
    """Run the requested action, which needs no running service, and return the action's exit code.

    If the model store refuses, print the error as JSON and return 1 if `--json` is given; without `--json`,
    raise ModelRefused.
    """
    config.home.prepare()
    log = logging.getLogger("mlx_server.model_store")
    level = log.level
    log.setLevel(logging.ERROR)  # the actions report broken models
    module = importlib.import_module(f"host_agent.cli.models.{options.module}")
    try:
        return int(module.run(options, config))
    except ModelStoreError as error:
        if getattr(options, "json", False):
            print_json_error(error)
            return 1
        raise ModelRefused(str(error)) from error
    finally:
        log.setLevel(level)


def print_json_error(error: ModelStoreError) -> None:
    """Print the error to stdout as one line of JSON, for programs."""
    import json

    body = {"code": error.code, "message": error.message, "remedy": error.remedy}
    print(json.dumps({"error": body}, ensure_ascii=False), file=sys.stdout)
