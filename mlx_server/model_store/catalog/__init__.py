"""List the models that can be loaded: configured models that are installed, other models of the store, and
folders in `mlx.models_folder`.
"""

from mlx_server.model_store.catalog.entry import BrokenModel, ModelEntry, entry_of
from mlx_server.model_store.catalog.folders import configured_folder
from mlx_server.model_store.catalog.listing import catalog, find, survey
from mlx_server.model_store.sources.local_paths import source_path

__all__ = [
    "BrokenModel",
    "ModelEntry",
    "catalog",
    "configured_folder",
    "entry_of",
    "find",
    "source_path",
    "survey",
]
