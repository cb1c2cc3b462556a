"""The load in progress: one model at a time, a slice a step. Lives in the MLX thread."""

from __future__ import annotations

import time
from collections.abc import Callable

from mlx_server.engine.errors import EngineError, RequestError
from mlx_server.engine.loading import Loader, Weights, load
from mlx_server.model_store import ModelEntry


class LoadInProgress:
    """`entry` on its way into memory."""

    def __init__(self, entry: ModelEntry, start: Callable[[ModelEntry], Loader] = load) -> None:
        self.entry = entry
        self.fraction = 0.0
        self.load_s = 0.0
        self._loader = start(entry)
        self._started_s = time.monotonic()

    def step(self) -> Weights | None:
        """One slice further; the model when it is complete. Raises LoadError."""
        try:
            self.fraction = next(self._loader)
        except StopIteration as end:
            self.load_s = time.monotonic() - self._started_s
            weights: Weights = end.value
            return weights
        return None


def must_find(catalog: Callable[[], list[ModelEntry]], model: str) -> ModelEntry:
    """The entry of `model`. Raises RequestError (`model_not_found`) that lists what there is."""
    entries = catalog()
    found = next((entry for entry in entries if entry.name == model), None)
    if found is None:
        there = ", ".join(entry.name for entry in entries) or "none"
        raise RequestError("model_not_found", f"Model {model} is not there; installed models: {there}.")
    return found


def failure(error: Exception, model: str) -> EngineError:
    """What to tell those who wait for `model`."""
    if isinstance(error, EngineError):
        return error
    return EngineError("model_load_failed", f"Model {model} could not be loaded: {error}")
