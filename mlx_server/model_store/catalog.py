"""What can be loaded: the configured models that are installed, and folders found in `mlx.models_folder`."""

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
from mlx_server.model_store.sources import source as model_sources
from vestal.config import Config, canonical

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ModelEntry:
    """One model on disk, in the terms of Ollama's `/api/tags` and `/api/show`; `name` is canonical.

    `digest` (sha256, hex) stands for the model's identity: configuration, tokenizer, and the headers and
    sizes of its weights. `modified` is in seconds since the epoch.
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
    """A folder that looks like a model and cannot be one; `reason` names the file and the fault."""

    name: str
    reason: str


def catalog(config: Config) -> list[ModelEntry]:
    """All models that can be loaded, by name. A broken one is logged and left out."""
    return survey(config)[0]


def survey(config: Config) -> tuple[list[ModelEntry], list[BrokenModel]]:
    """What can be loaded, and what only looks as if it could; each by name."""
    entries: dict[str, ModelEntry] = {}
    broken: dict[str, BrokenModel] = {}
    for name, folder, context_tokens in _folders(config):
        if name in entries or not model_folder.looks_like_model(folder):
            continue
        try:
            entries[name] = _entry(name, folder, context_tokens)
        except model_folder.UnreadableModel as error:
            _log_once(name, str(error))
            broken.setdefault(name, BrokenModel(name, str(error)))
    return (
        sorted(entries.values(), key=lambda entry: entry.name),
        sorted((b for n, b in broken.items() if n not in entries), key=lambda b: b.name),
    )


@functools.lru_cache(maxsize=256)
def _log_once(name: str, reason: str) -> None:
    """The folders are read for every burst of requests."""
    log.warning("model %s is left out: %s", name, reason)


def find(config: Config, name: str) -> ModelEntry | None:
    """The model of that name, however it is written; None where it is not installed."""
    wanted = canonical(name)
    return next((entry for entry in catalog(config) if entry.name == wanted), None)


def configured_folder(config: Config, name: str) -> Path | None:
    """Where the files of configured model `name` lie or will lie; None for what cannot be told yet."""
    settings = config.model_source(name)
    if settings is None:
        return None
    try:
        source = model_sources.parse(name, settings.source)
    except ModelStoreError:
        return None
    if isinstance(source, model_sources.PathSource):
        path = source_path(config, source)
        if path.suffix != ".gguf":
            return path
    installed = layout.installed_path(config.models_dir, canonical(name))
    elsewhere = layout.read_manifest(installed).get("path")
    return Path(elsewhere) if isinstance(elsewhere, str) else installed


def source_path(config: Config, source: model_sources.PathSource) -> Path:
    """`~` is the user's folder; what is relative starts beside the configuration file."""
    base = config.file.parent if config.file else Path.cwd()
    return (base / Path(source.path).expanduser()).absolute()


def _folders(config: Config) -> Iterator[tuple[str, Path, int | None]]:
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
    facts = model_folder.read(folder)
    return ModelEntry(
        name=name,
        path=folder,
        kind=facts.kind,
        bytes=facts.bytes,
        weights_bytes=facts.weights_bytes,
        modified=facts.modified,
        format="mlx",
        family=facts.family,
        parameter_size=_human(facts.parameters),
        quantization=facts.quantization,
        context_tokens=min(context_tokens or facts.context_tokens, facts.context_tokens),
        digest=facts.digest,
    )


def _human(parameters: int) -> str:
    if parameters >= 1e9:
        return f"{parameters / 1e9:.1f}B"
    return f"{parameters / 1e6:.2f}M"
