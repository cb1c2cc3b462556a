"""The models that can be loaded: configured ones that are installed, and folders in `mlx.models_folder`."""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from mlx_server.model_store import layout
from mlx_server.model_store.errors import ModelStoreError
from mlx_server.model_store.files import model_folder
from mlx_server.model_store.files.weight_files import UnreadableModel
from mlx_server.model_store.preset import Preset, from_manifest
from mlx_server.model_store.sources.source import PathSource, parse_source
from vestal.config import Config, canonical, find_named

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ModelEntry:
    """One model on disk, in the terms of Ollama's `/api/tags` and `/api/show`.

    `name` is canonical. `bytes` is the size of all files, `weights_bytes` that of the tensors. `digest`
    (sha256, hex) identifies the model: its configuration, its tokenizer, and the headers and sizes of its
    weight files, and its preset. `modified` is in seconds since the epoch.

    `weights_name` is the name under which an engine loads the weights: a model that was made from another
    shares its parent's, and so the memory that they take. `parameters` counts the weights. `architecture` has
    the figures of `/api/show`, such as `embedding_length`, under their names without the model family.
    """

    name: str
    path: Path
    kind: Literal["generate", "embed"]
    bytes: int
    weights_bytes: int
    modified: float
    format: str
    family: str
    parameter_size: str
    quantization: str
    context_tokens: int
    digest: str
    weights_name: str = ""
    parameters: int = 0
    architecture: dict[str, int] = field(default_factory=dict, hash=False)
    capabilities: tuple[str, ...] = ()
    license: str = ""
    preset: Preset = Preset()

    @property
    def loaded_as(self) -> str:
        """Return the name that the engine is given for this model."""
        return self.weights_name or self.name

    def as_json(self) -> dict[str, Any]:
        """Return the model as programs read it: `vestal models list --json`."""
        hidden = ("preset", "license", "architecture")
        shown = {name: getattr(self, name) for name in self.__dataclass_fields__ if name not in hidden}
        return shown | {"path": str(self.path), "parent": self.preset.parent}


@dataclass(frozen=True)
class BrokenModel:
    """A folder with the files of a model that cannot be loaded; `reason` names the file and the fault."""

    name: str
    reason: str


def catalog(config: Config) -> list[ModelEntry]:
    """Return the models that can be loaded, sorted by name. Broken ones are logged and left out."""
    return survey(config)[0]


def survey(config: Config) -> tuple[list[ModelEntry], list[BrokenModel]]:
    """Return the models that can be loaded, and the broken ones; each sorted by name."""
    entries: dict[str, ModelEntry] = {}
    broken: dict[str, BrokenModel] = {}
    owners: dict[_Weights, ModelEntry] = {}
    for found in _folders(config):
        name = found.name
        if name in entries or not model_folder.looks_like_model(found.folder):
            continue
        try:
            facts = model_folder.read_facts(found.folder)
        except UnreadableModel as error:
            _log_once(name, str(error))
            broken.setdefault(name, BrokenModel(name, str(error)))
            continue
        # Folders come with the models that were made from others last, so the owner of the weights is known.
        owner = owners.setdefault((facts.digest, facts.weights_file), entry := _entry(found, facts))
        entries[name] = entry if found.preset is None else _sharing(entry, owner, found.preset)
    return (
        sorted(entries.values(), key=lambda entry: entry.name),
        sorted((b for n, b in broken.items() if n not in entries), key=lambda b: b.name),
    )


@functools.lru_cache(maxsize=256)
def _log_once(name: str, reason: str) -> None:
    """Log a broken model, but not again each time that the folders are read."""
    log.warning("model %s is left out: %s", name, reason)


_Weights = tuple[str, tuple[int, int]]
"""What tells weights apart: the digest of a folder's files, and the file that holds the first weights."""


def _sharing(entry: ModelEntry, owner: ModelEntry, preset: Preset) -> ModelEntry:
    """Return `entry`, which was made from another model, with the weights of `owner` and its own preset."""
    capabilities = entry.capabilities
    if preset.template:
        fills_gaps = "insert" in capabilities
        capabilities = model_folder.capabilities_of(preset.template, fills_gaps=fills_gaps)
    return replace(
        entry,
        weights_name=owner.name,
        context_tokens=owner.context_tokens,
        digest=preset.digest(entry.digest),
        capabilities=capabilities,
        preset=preset,
    )


def find(config: Config, name: str) -> ModelEntry | None:
    """Return the model of that name, in any spelling of it; None if it is not installed."""
    return find_named(name, catalog(config), lambda entry: entry.name)


def configured_folder(config: Config, name: str) -> Path | None:
    """Return the folder that holds, or will hold, the files of the configured model `name`.

    Returns None if the model is not configured, or its source cannot be parsed.
    """
    settings = config.model_source(name)
    if settings is None:
        return None
    try:
        source = parse_source(name, settings.source)
    except ModelStoreError:
        return None
    if isinstance(source, PathSource):
        path = source_path(config, source)
        if path.suffix != ".gguf":
            return path
    installed = layout.installed_path(config.models_dir, canonical(name))
    in_hub_cache = layout.read_manifest(installed).get("path")
    return Path(in_hub_cache) if isinstance(in_hub_cache, str) else installed


def source_path(config: Config, source: PathSource) -> Path:
    """Return the absolute path of `source`.

    `~` is the user's home; a relative path starts in the folder of the configuration file.
    """
    base = config.file.parent if config.file else Path.cwd()
    return (base / Path(source.path).expanduser()).absolute()


@dataclass(frozen=True)
class _ModelFolder:
    """A folder that may be a model, its name, and what is known of it besides its files."""

    name: str
    folder: Path
    context_tokens: int | None = None
    preset: Preset | None = None
    installed_at: float = 0.0


def _folders(config: Config) -> Iterator[_ModelFolder]:
    """Yield each possible model: configured ones, those in `mlx.models_folder`, other ones of the store.

    Of the latter, those that were made from others come last.
    """
    for name, settings in config.models.items():
        if folder := configured_folder(config, name):
            yield _ModelFolder(canonical(name), folder, settings.context_tokens)
    for folder in _subfolders(config.mlx.models_folder):
        if model_folder.looks_like_model(folder):
            yield _ModelFolder(canonical(layout.model_name(folder.name)), folder)
    others = [found for found in map(_in_store, _subfolders(config.models_dir)) if found]
    yield from sorted(others, key=lambda found: (found.preset is not None, found.name))


def _in_store(folder: Path) -> _ModelFolder | None:
    """Return the model in a folder of the store, by the name in its manifest; None if it has none."""
    manifest = layout.read_manifest(folder)
    name, path, installed_at = (manifest.get(key) for key in ("name", "path", "installed_at"))
    if folder.name.startswith(".") or not isinstance(name, str) or not name:
        return None
    files = Path(path) if isinstance(path, str) else folder
    at = float(installed_at) if isinstance(installed_at, int | float) else 0.0
    return _ModelFolder(canonical(name), files, preset=from_manifest(manifest), installed_at=at)


def _subfolders(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def _entry(found: _ModelFolder, facts: model_folder.ModelFacts) -> ModelEntry:
    context_tokens = found.context_tokens
    return ModelEntry(
        name=found.name,
        path=found.folder,
        kind=facts.kind,
        bytes=facts.bytes,
        weights_bytes=facts.weights_bytes,
        modified=found.installed_at if found.preset is not None else facts.modified,
        format="mlx",
        family=facts.family,
        parameter_size=_format_count(facts.parameters),
        quantization=facts.quantization,
        context_tokens=min(context_tokens or facts.context_tokens, facts.context_tokens),
        digest=facts.digest,
        parameters=facts.parameters,
        architecture=_architecture(facts.config),
        capabilities=facts.capabilities,
        license=facts.license,
    )


_FIGURES = {
    "embedding_length": "hidden_size",
    "block_count": "num_hidden_layers",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "vocab_size": "vocab_size",
}
"""Ollama's name for a figure of an architecture, and the name in `config.json`."""


def _architecture(config: dict[str, Any]) -> dict[str, int]:
    """Return the architecture's figures from the text model's configuration; empty for other layouts."""
    text = config.get("text_config")
    both = config | text if isinstance(text, dict) else config
    figures = {name: both.get(key) for name, key in _FIGURES.items()}
    return {name: value for name, value in figures.items() if isinstance(value, int) and value > 0}


def _format_count(parameters: int) -> str:
    """Return a number of parameters as Ollama writes it: `134.52M`, `8.0B`."""
    if parameters >= 1e9:
        return f"{parameters / 1e9:.1f}B"
    return f"{parameters / 1e6:.2f}M"
