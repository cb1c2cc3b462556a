"""`vestal models rm`: delete models that Vestal fetched or created, unless a request uses them."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from dataclasses import dataclass

from host_agent.cli.gateway import GatewayClient
from host_agent.cli.models.models import ModelRefused
from host_agent.cli.models.pull import confirm
from host_agent.errors import GatewayUnreachable
from mlx_server.model_store import ModelEntry, catalog, find, remove, survey
from mlx_server.model_store.layout import installed_path, read_manifest
from vestal.config import Config, find_named
from vestal.config.units import format_size


@dataclass(frozen=True)
class Removal:
    """A model to delete. `about` is what the user reads before confirming."""

    name: str
    about: str


def run(options: argparse.Namespace, config: Config) -> int:
    """Delete the named models. On a terminal, ask before each deletion unless `--yes` is given.

    Return 1 if the user kept a model, else 0. Raises ModelRefused, before anything is deleted, if a model is
    not installed, was neither fetched nor created by Vestal, or is used by a request.

    If the program that answers on this home's port is Ollama, or an MLX server of another home, it is
    neither asked which models its requests use nor asked to delete a model.
    """
    client = GatewayClient(config)
    gateway = client if client.is_of(config.home) else None
    removals = [_removal(config, name) for name in options.names]
    in_use = _models_in_use(gateway)
    for removal in removals:
        if count := in_use.count(removal.name):
            raise ModelRefused(
                f"{count} {'request uses' if count == 1 else 'requests use'} {removal.name} now: "
                "wait until `vestal top` shows none, or cancel them."
            )
    kept = []
    for removal in removals:
        if not options.json:
            print(removal.about)
        if _asks(options) and not confirm(f"Delete {removal.name}?"):
            kept.append(removal.name)
            continue
        _remove(config, gateway, removal.name)
        body = {"model": removal.name, "removed": True}
        print(json.dumps(body) if options.json else f"{removal.name}: removed")
    return 1 if kept else 0


def _asks(options: argparse.Namespace) -> bool:
    return not (options.yes or options.json) and sys.stdin.isatty() and sys.stdout.isatty()


def _removal(config: Config, name: str) -> Removal:
    """Return what `vestal models rm` has to delete for the model `name`, and what the user reads before
    confirming. Nothing is deleted yet.

    Raises ModelRefused if the model is not installed, or was neither fetched nor created by Vestal.
    """
    entries, broken = survey(config)
    entry = find(config, name)
    named = entry or find_named(name, broken, lambda each: each.name)
    if named is None:
        there = ", ".join(each.name for each in entries) or "none"
        raise ModelRefused(f"Model {name} is not installed; there are: {there}.")
    folder = installed_path(config.models_dir, named.name)
    if not folder.exists():
        where = entry.path if entry else config.mlx.models_folder
        raise ModelRefused(f"Model {named.name} was not fetched by Vestal: delete it in {where} yourself.")
    if entry is None:
        return Removal(named.name, f"{named.name} is broken, in {folder}.")
    return Removal(named.name, " ".join(_about(config, entry)))


def _about(config: Config, entry: ModelEntry) -> list[str]:
    sentences = [f"{entry.name} has {format_size(entry.bytes)} in {entry.path}."]
    sharing = [each.name for each in catalog(config) if _shares(each, entry)]
    if sharing:
        keep = "keeps" if len(sharing) == 1 else "keep"
        sentences.append(f"Its weights are shared by {', '.join(sharing)}, which {keep} them.")
    manifest = read_manifest(installed_path(config.models_dir, entry.name))
    if "path" in manifest:
        repo = str(manifest.get("source", "")).removeprefix("hf:").partition("@")[0]
        sentences.append(
            f"Its files stay in the hub's cache, which other programs use: `hf cache rm model/{repo}` "
            "deletes them there."
        )
    return sentences


def _shares(other: ModelEntry, entry: ModelEntry) -> bool:
    """Return whether another model, `other`, has the same weight files as `entry`."""
    return other.name != entry.name and bool(entry.weights_id) and other.weights_id == entry.weights_id


def _models_in_use(gateway: GatewayClient | None) -> list[str]:
    """Return the name of the model of each request in flight; an empty list if no MLX server of this home
    runs.
    """
    if gateway is None:
        return []
    try:
        requests = gateway.get("/requests").get("requests", [])
    except GatewayUnreachable:
        return []
    return [str(each.get("model", "")) for each in requests if isinstance(each, dict)]


def _remove(config: Config, gateway: GatewayClient | None, name: str) -> None:
    """Delete a model through the MLX server of this home, which unloads the model first. If no such server
    runs (`gateway` is None), or it has not deleted the model's folder, delete the folder without it.

    Raises ModelRefused if the folder still exists afterwards.
    """
    if gateway is not None:
        with contextlib.suppress(GatewayUnreachable):
            gateway.delete("/api/delete", {"model": name})
    folder = installed_path(config.models_dir, name)
    if folder.exists():
        remove(config, name)
    if folder.exists():
        raise ModelRefused(f"Model {name} is still in {folder}: if a download of it runs, stop that first.")
