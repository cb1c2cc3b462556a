"""Fetch, convert, install, list and remove the models on disk.

catalog(config)                     the models that can be loaded
survey(config)                      the models that can be loaded, and those that are broken
find(config, name)                  one model that can be loaded
ensure(config, names, on_progress)  fetch the models that are missing
remove(config, name)                delete a model that was fetched or made
make(config, name, base, preset)    make a model from another one, whose files it shares

Nothing in this package imports mlx, except the converter, which runs in a process of its own.
"""

from mlx_server.model_store.catalog import BrokenModel, ModelEntry, catalog, find, survey
from mlx_server.model_store.errors import ModelStoreError
from mlx_server.model_store.installation import ensure, remove
from mlx_server.model_store.making import make
from mlx_server.model_store.preset import Preset

__all__ = [
    "BrokenModel",
    "ModelEntry",
    "ModelStoreError",
    "Preset",
    "catalog",
    "ensure",
    "find",
    "make",
    "remove",
    "survey",
]
