"""LoRA adapters: small trained additions to a model's weights, read and checked without mlx.

read_adapter(folder, base, digest)   an adapter's settings and sizes, checked against the model that it adapts
configured_adapters(config, name)    the adapters that the configuration has for a model
configured_folder(config, adapter)   the folder that holds a configured adapter
fetched_folder(folder)               the folder of the adapter that a model's manifest names
"""

from mlx_server.model_store.adapters.adapter import Adapter, read_adapter
from mlx_server.model_store.adapters.configured import configured_adapters, configured_folder, fetched_folder

__all__ = ["Adapter", "configured_adapters", "configured_folder", "fetched_folder", "read_adapter"]
