"""The adapters that the configuration has for its models, and the folders that hold them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from mlx_server.model_store import layout
from mlx_server.model_store.errors import ModelStoreError
from mlx_server.model_store.sources.source import PathSource, parse_source
from vestal.config import Config, canonical
from vestal.config.settings import ModelAdapter

MANIFEST_KEY = "adapter"
"""Key in the manifest of a model with an adapter: the adapter's folder, absolute or in the model's own one.
"""
SUBFOLDER = "adapter"
"""The folder of an adapter whose files are in the store, in that of its model."""


def configured_adapters(config: Config, model: str) -> Iterator[tuple[str, Path | None]]:
    """Yield name and folder of each adapter of the configured model `model`; None for one that was not
    fetched, or whose source cannot be parsed.
    """
    for adapter in config.adapters():
        if adapter.base == canonical(model):
            yield adapter.name, configured_folder(config, adapter)


def configured_folder(config: Config, adapter: ModelAdapter) -> Path | None:
    """Return the folder that holds a configured adapter; None if it was not fetched."""
    try:
        source = parse_source(adapter.name, adapter.source)
    except ModelStoreError:
        return None
    if isinstance(source, PathSource):
        base = config.file.parent if config.file else Path.cwd()
        return (base / Path(source.path).expanduser()).absolute()
    return fetched_folder(layout.installed_path(config.models_dir, adapter.name))


def fetched_folder(folder: Path) -> Path | None:
    """Return the folder of the adapter that the manifest in `folder` names; None if it names none."""
    path = layout.read_manifest(folder).get(MANIFEST_KEY)
    return folder / path if isinstance(path, str) and path else None
