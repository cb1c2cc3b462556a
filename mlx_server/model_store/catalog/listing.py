"""List the models that can be loaded, and the broken models, from all folders that may hold models."""

from __future__ import annotations

import functools
import hashlib
import logging
from dataclasses import replace
from pathlib import Path

from mlx_server.model_store.adapters import read_adapter
from mlx_server.model_store.catalog.drafts import with_drafts
from mlx_server.model_store.catalog.entry import BrokenModel, ModelEntry, entry_in
from mlx_server.model_store.catalog.folders import ModelFolder, model_folders
from mlx_server.model_store.files import model_folder
from mlx_server.model_store.files.capabilities import capabilities_of
from mlx_server.model_store.files.weight_files import UnreadableModel, damage_explained
from mlx_server.model_store.preset import Preset
from vestal.config import Config, find_named

log = logging.getLogger(__name__)


def catalog(config: Config) -> list[ModelEntry]:
    """Return the models that can be loaded, sorted by name. Broken models are logged and left out."""
    return survey(config)[0]


def survey(config: Config) -> tuple[list[ModelEntry], list[BrokenModel]]:
    """Return the models that can be loaded, and the broken models; both lists are sorted by name."""
    found_models = _Survey(config)
    for found in model_folders(config):
        found_models.add(found)
    return found_models.entries_and_broken()


def find(config: Config, name: str) -> ModelEntry | None:
    """Return the model with the name `name`, in any spelling; None if it is not installed."""
    return find_named(name, catalog(config), lambda entry: entry.name)


class _Survey:
    """Collects the models that are found, and decides which of them share weights.

    The first model that is found with certain weights counts as their owner. Models that were made from it
    are found later, and share its weights.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        self._entries: dict[str, ModelEntry] = {}
        self._broken: dict[str, BrokenModel] = {}
        self._owners: dict[_Weights, ModelEntry] = {}

    def add(self, found: ModelFolder) -> None:
        """Add the model in a folder, and the models that the configuration makes from it with adapters."""
        if found.name in self._entries:
            return
        try:
            with damage_explained(found.folder):
                self._add_readable(found)
        except UnreadableModel as error:
            self._add_broken(found, str(error))

    def _add_readable(self, found: ModelFolder) -> None:
        """Add the model in a folder, and the models that the configuration makes from it with adapters. Do
        nothing if the folder does not look like a model. Raises UnreadableModel, or an error of one of
        the types in DAMAGE, if the folder cannot be read.
        """
        if not model_folder.has_model_files(found.folder):
            return
        facts = model_folder.read_facts(found.folder)
        entry = entry_in(found, facts)
        weights = (facts.digest, facts.weights_files, "")
        if found.adapter is not None:
            entry = self._adapted(replace(self._owners.get(weights, entry), name=found.name), found.adapter)
            entry = replace(entry, modified=found.installed_at)
            weights = (*weights[:2], entry.adapter.digest if entry.adapter else "")
        owner = self._owners.get(weights, entry)
        listed = entry if found.preset is None else _sharing(entry, owner, found.preset)
        self._owners[weights], self._entries[found.name] = owner, listed
        for name, folder in found.adapters.items():
            self._add_adapter(entry, name, folder, weights)

    def _add_adapter(self, base: ModelEntry, name: str, folder: Path, weights: _Weights) -> None:
        """Add the model `name` that consists of `base` and the configured adapter in `folder`, as broken if
        the adapter cannot be used. `weights` identifies the base's weights.
        """
        try:
            with damage_explained(folder):
                entry = self._adapted(replace(base, name=name, preset=Preset(parent=base.name)), folder)
        except UnreadableModel as error:
            self._add_broken(ModelFolder(name, folder), str(error))
            return
        self._entries.setdefault(name, entry)
        self._owners.setdefault((*weights[:2], entry.adapter.digest if entry.adapter else ""), entry)

    def _adapted(self, entry: ModelEntry, folder: Path) -> ModelEntry:
        """Return `entry` with the adapter in `folder` added. `entry` is the base model under the adapted
        model's name.

        Raises UnreadableModel if the base does not generate text, or the adapter cannot be read or does not
        suit the base.
        """
        if entry.kind != "generate":
            raise UnreadableModel(
                f"{folder}: {entry.path} does not generate text, so no adapter is added to it"
            )
        adapter = read_adapter(folder, entry.path, entry.digest)
        return replace(
            entry,
            bytes=entry.bytes + adapter.bytes,
            weights_bytes=entry.weights_bytes + adapter.weights_bytes,
            modified=max(entry.modified, adapter.modified),
            digest=hashlib.sha256(f"{entry.digest} {adapter.digest}".encode()).hexdigest(),
            weights_name="",
            parameters=entry.parameters + adapter.parameters,
            adapter=adapter,
        )

    def _add_broken(self, found: ModelFolder, reason: str) -> None:
        """Add a broken model, and the models that the configuration would make from it with adapters, as
        broken too.
        """
        _log_once(found.name, reason)
        self._broken.setdefault(found.name, BrokenModel(found.name, reason))
        for name in found.adapters:
            self._add_broken(ModelFolder(name, found.folder), f"its base {found.name} is broken: {reason}")

    def entries_and_broken(self) -> tuple[list[ModelEntry], list[BrokenModel]]:
        broken = [b for name, b in self._broken.items() if name not in self._entries]
        entries, refused = with_drafts(self._config, list(self._entries.values()))
        return (
            sorted(entries, key=lambda entry: entry.name),
            sorted([*broken, *refused], key=lambda each: each.name),
        )


@functools.lru_cache(maxsize=256)
def _log_once(name: str, reason: str) -> None:
    """Log that a model is broken, but only the first time, because the folders are read again and again."""
    log.warning("model %s is left out: %s", name, reason)


_Weights = tuple[str, str, str]
"""What identifies weights: the digest of a folder's files, the id of its weight files, and the digest of the
adapter, or "" without one.
"""


def _sharing(entry: ModelEntry, owner: ModelEntry, preset: Preset) -> ModelEntry:
    """Return `entry`, a model that was made from another one, as a model that shares the weights of `owner`
    and has the settings in `preset`.
    """
    capabilities = entry.capabilities
    if preset.template:
        capabilities = capabilities_of(
            preset.template, fills_gaps="insert" in capabilities, reads_images="vision" in capabilities
        )
    return replace(
        entry,
        weights_name=owner.name,
        context_tokens=owner.context_tokens,
        digest=preset.digest(entry.digest),
        capabilities=capabilities,
        preset=preset,
    )
