"""Forecast, and cache, how much memory each model and its requests will take. Pure."""

from __future__ import annotations

from collections.abc import Callable

from mlx_server.engine.errors import LoadError
from mlx_server.memory_forecast.forecast import Forecast
from mlx_server.memory_forecast.kv_quantization import KvQuantization, KvQuantizationOf
from mlx_server.memory_forecast.weights import Arithmetic
from mlx_server.model_store import ModelEntry
from mlx_server.model_store.files.weight_files import UnreadableModel
from mlx_server.model_store.forecasts import Files, forecast_of


class Forecasts:
    """Forecasts, and caches, how much memory each model and its requests will take. A forecast is made from
    `arithmetic` (how MLX computes on this machine), `step_tokens` (how many tokens of a prompt a step
    processes), the model's files, which `files_of` reads, and the quantization of the model's keys and
    values, which `kv_of` returns.
    """

    def __init__(
        self,
        arithmetic: Arithmetic,
        step_tokens: int,
        files_of: Callable[[ModelEntry], Files],
        kv_of: KvQuantizationOf,
    ) -> None:
        self._arithmetic, self._step_tokens = arithmetic, step_tokens
        self._files_of, self._kv_of = files_of, kv_of
        self._unquantizable: set[str] = set()  # digests of models that cannot use quantized KV
        self._known: dict[tuple[str, str, KvQuantization | None], Forecast] = {}

    def of(self, entry: ModelEntry) -> Forecast:
        """Return how much memory the model `entry` and its requests need. This forecast is made once, and
        then cached. If the model's files lack a value from which it is made, it counts only the weights.
        Raises LoadError if the files are unreadable.
        """
        kv = None if entry.digest in self._unquantizable else self._kv_of(entry.name)
        key = entry.digest, entry.draft.digest if entry.draft else "", kv
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = self._made(entry, kv)
        return known

    def cannot_quantize_kv(self, entry: ModelEntry) -> None:
        """Record that the model `entry` cannot work with quantized keys and values."""
        self._unquantizable.add(entry.digest)

    def _made(self, entry: ModelEntry, kv: KvQuantization | None) -> Forecast:
        try:
            files = self._files_of(entry)
        except UnreadableModel as error:
            raise LoadError(entry.name, str(error)) from error
        return forecast_of(entry, files, self._arithmetic, step_tokens=self._step_tokens, kv=kv)
