"""`vestal models`: list, fetch and remove models."""

import argparse
import sys

from host_agent.cli.run import model_store
from host_agent.cli.run.fetch_models import ModelsMissing, fetch
from host_agent.cli.run.progress import Progress
from vestal.config import Config


def run(options: argparse.Namespace, config: Config) -> int:
    """Return the exit code of the model store. `pull` is another name for `ensure`.

    On a terminal, the progress of a fetch is one line for each model.
    """
    config.home.prepare()
    action = "ensure" if options.action == "pull" else options.action
    if action != "ensure" or not sys.stdout.isatty():
        return model_store.run(action, *options.names)
    if problem := fetch(options.names, Progress()):
        raise ModelsMissing(problem)
    return 0
