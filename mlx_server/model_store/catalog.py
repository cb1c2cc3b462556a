"""The models that can be loaded: configured ones that are installed, and folders in `mlx.models_folder`."""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mlx_server.model_store import layout
from mlx_server.model_store.errors import ModelStoreError
from mlx_server.model_store.files import model_folder
from mlx_server.model_store.files.weight_files import UnreadableModel
from mlx_server.model_store.sources.source import PathSource, parse_source
from vestal.config import Config, canonical

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ModelEntry:
    """One model on disk, in the terms of Ollama's `/api/tags` and `/api/show`.

    `name` is canonical. `bytes` is the size of all files, `weights_bytes` that of the tensors. `digest`
    (sha256, hex) identifies the model: its configuration, its tokenizer, and the headers and sizes of its
    weight files. `modified` is in seconds since the epoch.
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
    for name, folder, context_tokens in _folders(config):
        if name in entries or not model_folder.looks_like_model(folder):
            continue
        try:
            entries[name] = _entry(name, folder, context_tokens)
        except UnreadableModel as error:
            _log_once(name, str(error))
            broken.setdefault(name, BrokenModel(name, str(error)))
    return (
        sorted(entries.values(), key=lambda entry: entry.name),
        sorted((b for n, b in broken.items() if n not in entries), key=lambda b: b.name),
    )


@functools.lru_cache(maxsize=256)
def _log_once(name: str, reason: str) -> None:
    """Log a broken model, but not again each time that the folders are read."""
    log.warning("model %s is left out: %s", name, reason)


def find(config: Config, name: str) -> ModelEntry | None:
    """Return the model of that name, in any spelling of it; None if it is not installed."""
    wanted = canonical(name)
    return next((entry for entry in catalog(config) if entry.name == wanted), None)


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


def _folders(config: Config) -> Iterator[tuple[str, Path, int | None]]:
    """Yield name, folder and configured context of each possible model; configured ones come first."""
    for name, settings in config.models.items():
        if folder := configured_folder(config, name):
            yield canonical(name), folder, settings.context_tokens
    try:
        found = sorted(config.mlx.models_folder.iterdir())
    except OSError:
        return
    for folder in found:
        if model_folder.looks_like_model(folder):
            yield canonical(layout.model_name(folder.name)), folder, None


def _entry(name: str, folder: Path, context_tokens: int | None) -> ModelEntry:
    facts = model_folder.read_facts(folder)
    return ModelEntry(
        name=name,
        path=folder,
        kind=facts.kind,
        bytes=facts.bytes,
        weights_bytes=facts.weights_bytes,
        modified=facts.modified,
        format="mlx",
        family=facts.family,
        parameter_size=_format_count(facts.parameters),
        quantization=facts.quantization,
        context_tokens=min(context_tokens or facts.context_tokens, facts.context_tokens),
        digest=facts.digest,
    )


def _format_count(parameters: int) -> str:
    """Return a number of parameters as Ollama writes it: `134.52M`, `8.0B`."""
    if parameters >= 1e9:
        return f"{parameters / 1e9:.1f}B"
    return f"{parameters / 1e6:.2f}M"
