"""`vestal models import-from-ollama`: list the models in Ollama's store, and import the requested ones."""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from host_agent.cli.models.download_view import download_view
from host_agent.cli.run import model_store
from host_agent.cli.table import Column, print_table
from mlx_server.model_store import disk
from mlx_server.model_store.ollama_store.candidates import Candidate, candidates, find_candidate
from mlx_server.model_store.ollama_store.manifests import default_store
from vestal.config import Config
from vestal.config.units import format_size

MODULE = "mlx_server.model_store.ollama_store"
COLUMNS = (
    Column("name"),
    Column("family"),
    Column("type"),
    Column("size", align="right"),
    Column("as MLX", align="right"),
    Column("import", wraps=True),
)


def run(options: argparse.Namespace, config: Config) -> int:
    """Import the named models, or all with `--all`. Without either, or with `--dry-run`, only list the
    models.

    Return 1 if a model could not be imported, else 0. Raises ModelStoreError if Ollama has no store, or the
    store has no model of a given name.
    """
    store = (options.store or default_store()).expanduser().absolute()
    chosen = _chosen(options, config, store)
    if options.dry_run or not (options.names or options.all):
        return _list(options, config, store, chosen)
    names = [each.model.name for each in chosen if each.state != "refused" or options.names]
    arguments = ["--store", str(store), "--", *names]
    if options.json:
        return model_store.run("--json", *arguments, module=MODULE)
    return _import(arguments)


def _chosen(options: argparse.Namespace, config: Config, store: Path) -> list[Candidate]:
    if options.names:
        return [find_candidate(config, store, name) for name in options.names]
    return candidates(config, store)


def _list(options: argparse.Namespace, config: Config, store: Path, chosen: list[Candidate]) -> int:
    new = [each for each in chosen if each.state == "convertible"]
    needed_bytes = sum(each.needed_bytes for each in new)
    free_bytes = disk.free_bytes(config.models_dir)
    if options.json:
        models = [each.as_json() for each in chosen]
        figures = {"store": str(store), "needed_bytes": needed_bytes, "free_bytes": free_bytes}
        print(json.dumps({"models": models, **figures}, ensure_ascii=False))
        return 0
    if chosen:
        print_table(COLUMNS, [_row(each) for each in chosen])
    print(_summary(store, chosen, len(new), needed_bytes, free_bytes))
    return 0


def _row(each: Candidate) -> tuple[str | tuple[str, str], ...]:
    said = {"convertible": ("yes", "green"), "installed": ("imported already", "dim")}
    return (
        each.model.name,
        each.family,
        each.quantization,
        format_size(each.model.bytes),
        format_size(each.needed_bytes) if each.needed_bytes else "",
        said.get(each.state, (f"no: {each.reason}", "red")),
    )


def _summary(store: Path, chosen: list[Candidate], new: int, needed_bytes: int, free_bytes: int) -> str:
    if not chosen:
        return f"Ollama has no models in {store}."
    if not new:
        return "There is nothing to import."
    size, free = format_size(needed_bytes), format_size(free_bytes)
    fits = (
        f"{size} of disk, {free} are free"
        if needed_bytes < free_bytes
        else f"{size} of disk; only {free} are free"
    )
    how = "`vestal models import-from-ollama NAME`, or `--all`"
    return f"{new} of {len(chosen)} can be imported ({fits}): {how}."


def _import(arguments: list[str]) -> int:
    """Import models in a separate process and show the progress. `arguments` are the command-line arguments
    of the program that imports, `mlx_server.model_store.ollama_store`.

    Print the reason of each failure to stderr, and return 1 if a model could not be imported, else 0.
    """
    failed = 0
    lines = model_store.json_lines(*arguments, module=MODULE)
    with download_view() as view, contextlib.closing(lines):
        try:
            for line in lines:
                update: dict[str, Any] = json.loads(line)
                if "fraction" in update:
                    view.show(update)
                elif "error" in update:
                    failed = 1
                    view.end(update["model"])
                    print(
                        f"vestal: {update['error']['message']} {update['error']['remedy']}", file=sys.stderr
                    )
                for note in update.get("notes", ()):
                    print(f"{update['model']}: {note}")
        except subprocess.CalledProcessError as error:
            if not failed:  # the program has printed the reason itself: the settings are wrong
                return error.returncode
    return failed
