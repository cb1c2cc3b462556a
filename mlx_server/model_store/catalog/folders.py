"""Find the folders that may hold models: folders of configured models, folders in `mlx.models_folder`, and
folders of the store.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mlx_server.model_store import layout
from mlx_server.model_store.adapters import configured_adapters, fetched_folder
from mlx_server.model_store.errors import ModelStoreError
from mlx_server.model_store.files import model_folder
from mlx_server.model_store.preset import Preset, from_manifest
from mlx_server.model_store.sources.local_paths import source_path
from mlx_server.model_store.sources.source import PathSource, parse_source
from vestal.config import Config, canonical
from vestal.platform.exhaustion import raise_if_exhausted


@dataclass(frozen=True)
class ModelFolder:
    """A folder that may hold a model, with the model's name and the facts that are not in the model's files.

    `context_tokens` is the configured context. A model that was made from another has a `preset`, and an
    `adapter` folder if it was made with one. `adapters` has the folders of the configured adapters, by the
    names of the models that they make.
    """

    name: str
    folder: Path
    context_tokens: int | None = None
    preset: Preset | None = None
    installed_at: float = 0.0
    adapter: Path | None = None
    adapters: Mapping[str, Path] = field(default_factory=dict)


def model_folders(config: Config) -> Iterator[ModelFolder]:
    """Yield each folder that may be a model: configured models, folders in `mlx.models_folder`, then the
    other models of the store.

    Of the other models of the store, those made from another model come last.
    """
    for name, settings in config.models.items():
        if folder := configured_folder(config, name):
            adapters = {made: path for made, path in configured_adapters(config, name) if path}
            yield ModelFolder(canonical(name), folder, settings.context_tokens, adapters=adapters)
    for folder in _subfolders(config.mlx.models_folder):
        if model_folder.looks_like_model(folder):
            yield ModelFolder(canonical(layout.model_name(folder.name)), folder)
    others = [found for found in map(_in_store, _subfolders(config.models_dir)) if found]
    yield from sorted(others, key=lambda found: (found.preset is not None, found.name))


def _in_store(folder: Path) -> ModelFolder | None:
    """Return the model in a folder of the store, with the name in its manifest; None if the folder's name
    begins with a dot or its manifest has no name.
    """
    manifest = layout.read_manifest(folder)
    name, path, installed_at = (manifest.get(key) for key in ("name", "path", "installed_at"))
    if folder.name.startswith(".") or not isinstance(name, str) or not name:
        return None
    files = Path(path) if isinstance(path, str) else folder
    at = 0.0
    if isinstance(installed_at, int | float) and 0 <= installed_at < _END_OF_TIME_S:
        at = float(installed_at)
    return ModelFolder(
        canonical(name), files, None, from_manifest(manifest), at, adapter=fetched_folder(folder)
    )


_END_OF_TIME_S = 2**36
"""The year 4147, in seconds since the epoch. A later time in a manifest is damage, and no date of ours."""


def _subfolders(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise_if_exhausted(error)
        return []


def configured_folder(config: Config, name: str) -> Path | None:
    """Return the folder that holds, or will hold, the files of the configured model `name`.

    Return None if the model is not configured or its source cannot be parsed.
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
