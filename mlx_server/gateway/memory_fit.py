"""Decide which of the installed models fit into memory, without a call to the engine.

The engine refuses a model that needs more than the engine's memory limit; a smaller model may have to wait
until memory is free. The limit is known from the engine's reports. What a model needs is computed by the same
forecast that the engine uses.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from mlx_server.memory_forecast.fit import fit
from mlx_server.memory_forecast.forecast import Forecast
from mlx_server.model_store import ModelEntry
from mlx_server.model_store.files.weight_files import UnreadableModel
from mlx_server.model_store.forecasts import forecast_of_installed
from vestal.config import Config


class MemoryFit:
    """Forecasts how much memory each installed model needs. Forecasts are cached by the model's digest, which
    changes with the model's files.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        self._forecasts: dict[str, Forecast | None] = {}  # by digest; None if the files cannot be read

    async def of(self, entries: Sequence[ModelEntry], limit_bytes: int) -> dict[str, dict[str, Any]]:
        """Return, by the name of each model, a dict with the keys `fits` (whether the model fits into
        `limit_bytes`), `needed_bytes` (how much memory it needs) and `limit_bytes`.

        A model whose need is unknown is left out. The result is empty if `limit_bytes` is 0, as it is before
        an engine has sent its first report.
        """
        if not limit_bytes:
            return {}
        known = dict(self._forecasts)
        new = [entry for entry in entries if entry.digest not in known]
        found = await asyncio.to_thread(lambda: [self._forecast(entry) for entry in new]) if new else []
        # Other calls may have replaced `_forecasts` meanwhile, from a newer list of models.
        known |= {entry.digest: each for entry, each in zip(new, found, strict=True)}
        self._forecasts = {entry.digest: known[entry.digest] for entry in entries}
        return {
            entry.name: fit(forecast, limit_bytes).as_json()
            for entry in entries
            if (forecast := known[entry.digest]) is not None
        }

    def _forecast(self, entry: ModelEntry) -> Forecast | None:
        """Return the memory forecast of a model; None if the model's files cannot be read."""
        try:
            return forecast_of_installed(self._config, entry)
        except (UnreadableModel, OSError):
            return None
