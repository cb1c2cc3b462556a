"""Models: fetch, convert, install, list. Nothing here imports mlx but `convert`.

catalog(config)                     what can be loaded now
survey(config)                      that, and what is broken
ensure(config, names, on_progress)  fetch what is missing
remove(config, name)                delete what was fetched
"""

from mlx_server.model_store.catalog import BrokenModel, ModelEntry, catalog, find, survey
from mlx_server.model_store.errors import ModelStoreError
from mlx_server.model_store.installation import ensure, remove

__all__ = [
    "BrokenModel",
    "ModelEntry",
    "ModelStoreError",
    "catalog",
    "ensure",
    "find",
    "remove",
    "survey",
]
