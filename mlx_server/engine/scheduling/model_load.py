"""The load of one model, advanced slice by slice so that loaded models continue to serve meanwhile."""

from __future__ import annotations

from collections.abc import Callable

from mlx_server.engine.models.loading import Loader, Weights
from mlx_server.model_store import ModelEntry

TURN_S = 0.05
"""How long one turn of a load may delay the next step of the running requests, in seconds. The slice that is
being read when the time is over is finished. With one slice a turn, a large model loaded several times slower
while a stream was running."""


class ModelLoad:
    """The load of one model. `fraction` is how much has been read, in 0..1."""

    def __init__(self, entry: ModelEntry, loader: Loader, now: float) -> None:
        self.entry, self.fraction = entry, 0.0
        self.weights: Weights | None = None
        self._loader, self._started_s = loader, now

    def advance(self, clock: Callable[[], float]) -> bool:
        """Read slices for TURN_S on `clock`. Return False if the loader itself waits for background work.

        Set `weights` when all is read. Raises EngineError.
        """
        before, until_s = self.fraction, clock() + TURN_S
        try:
            while (fraction := next(self._loader)) != self.fraction:
                self.fraction = fraction
                if clock() >= until_s:
                    break
        except StopIteration as end:
            self.weights = end.value
        return self.fraction != before

    def elapsed_s(self, now: float) -> float:
        return now - self._started_s
