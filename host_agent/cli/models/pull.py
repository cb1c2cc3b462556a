"""`vestal models pull`: fetch missing models, and show the speed and the remaining time."""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
from typing import Any

from host_agent.cli.models.download_view import DownloadView, download_view
from host_agent.cli.run import image_packages, model_store
from host_agent.cli.run.progress import Progress
from host_agent.cli.screen import styled
from vestal.config import Config


def run(options: argparse.Namespace, config: Config) -> int:
    """Fetch those of the models `options.names` that are missing; without names, those of the setting
    `mlx.preload`. Return 0, or 1 if a model was not fetched, with the reason on stderr.

    A model that does not fit into memory is fetched only with `options.force`, or if a person on the terminal
    agrees. Otherwise it counts as not fetched. With `options.json`, nobody is asked, and progress and errors
    are printed as JSON.
    """
    if options.json:
        return model_store.run("pull", "--json", *(["--force"] if options.force else []), *options.names)
    refused = _fetch(options.names, force=options.force)
    too_large = [name for name, error in refused.items() if error["code"] == "insufficient_memory"]
    for name in too_large:
        if confirm(f"{refused[name]['message']} Fetch it all the same?"):
            del refused[name]
            refused |= _fetch([name], force=True)
    image_packages.install_if_needed(config, Progress())
    for error in refused.values():
        print(f"vestal: {error['message']} {error['remedy']}", file=sys.stderr)
    return 1 if refused else 0


def confirm(question: str) -> bool:
    """Ask a yes-or-no question on the terminal. Return False without asking if no person can answer."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        return False
    try:
        return input(styled.printable(f"{question} [y/N] ")).strip().casefold() in ("y", "yes")
    except EOFError:
        print()
        return False


def _fetch(names: list[str], *, force: bool) -> dict[str, dict[str, str]]:
    """Fetch the models and show the progress. `force` fetches models that do not fit into memory too.

    Return a dict from the name of each model that failed to the `code`, `message` and `remedy` of its error.
    The name is "" if the fetching program ended without reporting an error.
    """
    refused: dict[str, dict[str, str]] = {}
    lines = model_store.json_lines("pull", *(["--force"] if force else []), *names)
    with download_view() as view, contextlib.closing(lines):
        try:
            for line in lines:
                _show(view, json.loads(line), refused)
        except subprocess.CalledProcessError as error:
            if not refused:  # the program has printed the reason itself: the settings are wrong
                refused[""] = _without_report(error)
    return refused


def _show(view: DownloadView, update: dict[str, Any], refused: dict[str, dict[str, str]]) -> None:
    if "error" in update:
        refused[update["model"]] = update["error"]
        view.end(update["model"])
    elif "fraction" in update:
        view.show(update)


def _without_report(error: subprocess.CalledProcessError) -> dict[str, str]:
    return {
        "code": "fetch_failed",
        "message": f"The model store's program ended with exit code {error.returncode}.",
        "remedy": "`vestal doctor` says more.",
    }
