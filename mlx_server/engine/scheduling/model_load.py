"""The load of one model, advanced in slices so that the loaded models can serve meanwhile."""

from __future__ import annotations

from collections.abc import Callable

from mlx_server.engine.models.loading import Loader, Weights
from mlx_server.model_store import ModelEntry

TURN_S = 0.05
"""How many seconds one turn of a load may delay the next step of the running requests. A slice that is being
read when the time is over is completed. If a turn were a single slice, loading a large model would take
several times as long while other requests run."""


class ModelLoad:
    """The load of one model. `fraction` is how much has been read (0 to 1). `weights` is the model once it is
    loaded; else None.

    If this load replaces a loaded model whose files have changed, `keep_alive_s` is the keep-alive in seconds
    that a client asked for that model; the new one then has it, too. It is None if no model is replaced, or
    no client asked for a keep-alive.
    """

    def __init__(
        self, entry: ModelEntry, loader: Loader, now: float, keep_alive_s: float | None = None
    ) -> None:
        self.entry, self.fraction, self.keep_alive_s = entry, 0.0, keep_alive_s
        self.weights: Weights | None = None
        self._loader, self._started_s = loader, now

    def advance(self, clock: Callable[[], float]) -> bool:
        """Continue to load the model, step by step, for TURN_S seconds on `clock`. Stop earlier after a step
        that does not change `fraction`, for example because the loader waits for background work. If the load
        is complete, set `weights`.

        Return whether `fraction` has changed. Raises EngineError if the model cannot be loaded.
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
