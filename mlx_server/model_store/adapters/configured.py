"""Find the adapters that the configuration has for its models, and the folders that hold them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from mlx_server.model_store import layout
from mlx_server.model_store.errors import ModelStoreError
from mlx_server.model_store.sources.local_paths import source_path
from mlx_server.model_store.sources.source import PathSource, parse_source
from vestal.config import Config, canonical
from vestal.config.settings import ModelAdapter

MANIFEST_KEY = "adapter"
"""Key in the manifest of a model with an adapter. Its value is the adapter's folder: an absolute path, or one
relative to the model's folder.
"""
SUBFOLDER = "adapter"
"""The name of the folder, inside its model's folder, of an adapter whose files are in the store."""


def configured_adapters(config: Config, model: str) -> Iterator[tuple[str, Path | None]]:
    """Yield the name and the folder of each adapter that is configured for `model`. The folder is None if the
    adapter is not fetched or its source cannot be parsed.
    """
    for adapter in config.adapters():
        if adapter.base == canonical(model):
            yield adapter.name, configured_folder(config, adapter)


def configured_folder(config: Config, adapter: ModelAdapter) -> Path | None:
    """Return the folder that holds a configured adapter; None if the adapter is not fetched or its source
    cannot be parsed.
    """
    try:
        source = parse_source(adapter.name, adapter.source)
    except ModelStoreError:
        return None
    if isinstance(source, PathSource):
        return source_path(config, source)
    return fetched_folder(layout.installed_path(config.models_dir, adapter.name))


def fetched_folder(folder: Path) -> Path | None:
    """Return the folder of the adapter that belongs to the model in `folder`, according to the model's
    manifest; None if the manifest names no adapter.
    """
    path = layout.read_manifest(folder).get(MANIFEST_KEY)
    return folder / path if isinstance(path, str) and path else None
