"""Load a complete model, for programs of this folder that need no engine around it."""

from __future__ import annotations

from mlx_server import blas

blas.preload()

from mlx_server.engine.models.loading import Weights, load  # noqa: E402
from mlx_server.model_store import ModelEntry  # noqa: E402


def loaded(entry: ModelEntry) -> Weights:
    """Load the weights of `entry` completely and return them. Raise LoadError."""
    loader = load(entry)
    while True:
        try:
            next(loader)
        except StopIteration as end:
            return end.value
