"""`vestal models rm`: delete models that Vestal has fetched or made, which no request uses."""

from __future__ import annotations

import argparse
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
    """A model to remove; `about` is what the user is told before confirming."""

    name: str
    about: str


def run(options: argparse.Namespace, config: Config) -> int:
    """Delete the models. On a terminal, ask before, unless there is `--yes`. Return 1 if one was kept.

    Raises ModelRefused, before anything is deleted, for a model that is unknown, not Vestal's, or in use.
    """
    gateway = GatewayClient(config)
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
    """Return the removal of model `name`. Raises ModelRefused if Vestal cannot remove it."""
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
    """Return True if `other` has the same weight files as `entry`."""
    return other.name != entry.name and bool(entry.weights_id) and other.weights_id == entry.weights_id


def _models_in_use(gateway: GatewayClient) -> list[str]:
    """Return the model of each request in flight; none if no MLX server runs."""
    try:
        requests = gateway.get("/requests").get("requests", [])
    except GatewayUnreachable:
        return []
    return [str(each.get("model", "")) for each in requests if isinstance(each, dict)]


def _remove(config: Config, gateway: GatewayClient, name: str) -> None:
    """Delete a model through the MLX server, which unloads it first; directly if none runs."""
    try:
        status = gateway.delete("/api/delete", {"model": name})
    except GatewayUnreachable:
        remove(config, name)
        return
    if status >= 400:
        remove(config, name)  # the server has another home, or lists the model no more
