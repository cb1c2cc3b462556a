"""Decide which of the installed models fit into memory, without a call to the engine.

The engine refuses a model that needs more than its memory limit; a smaller one may have to wait until memory
is free. The limit comes from the engine's reports, the need from the forecast that the engine uses too.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from typing import Any

from mlx_server.memory_forecast.forecast import ENGINE_BYTES
from mlx_server.memory_forecast.kv_quantization import KvQuantization
from mlx_server.memory_forecast.model_files import PREFILL_STEP_TOKENS, files_of, forecast_of
from mlx_server.memory_forecast.weights import Arithmetic
from mlx_server.model_store import ModelEntry
from mlx_server.model_store.files.weight_files import UnreadableModel
from vestal.config import Config

ON_METAL = sys.platform == "darwin"
"""Whether MLX computes on Metal, as on every Mac that it runs on. The gateway must not import MLX to ask."""


class MemoryFit:
    """The memory needs of the installed models. Each model is forecast once; a changed one has another
    digest.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        self._arithmetic = Arithmetic(dense_float32=not ON_METAL, fused_attention=ON_METAL)
        self._needed_bytes: dict[
            str, int | None
        ] = {}  # model digest -> forecast; None if the files cannot be read

    async def of(self, entries: Sequence[ModelEntry], limit_bytes: int) -> dict[str, dict[str, Any]]:
        """Return for each model, by name, whether it fits into `limit_bytes`, and how many bytes it needs.

        A model whose need is unknown is left out. All are left out if the limit is 0, as before the first
        report of an engine.
        """
        if not limit_bytes:
            return {}
        new = [entry for entry in entries if entry.digest not in self._needed_bytes]
        found = await asyncio.to_thread(lambda: [self._forecast(entry) for entry in new]) if new else []
        known = self._needed_bytes | {entry.digest: need for entry, need in zip(new, found, strict=True)}
        self._needed_bytes = {entry.digest: known[entry.digest] for entry in entries}
        return {
            entry.name: {"fits": need <= limit_bytes, "needed_bytes": need, "limit_bytes": limit_bytes}
            for entry in entries
            if (need := self._needed_bytes[entry.digest]) is not None
        }

    def _forecast(self, entry: ModelEntry) -> int | None:
        """Return the bytes that the engine needs to load the model and to answer one small request."""
        bits = self._config.kv_quantization(entry.name)
        try:
            files = files_of(entry)
        except (UnreadableModel, OSError):
            return None
        kv = KvQuantization(*bits) if bits else None
        found = forecast_of(entry, files, self._arithmetic, step_tokens=PREFILL_STEP_TOKENS, kv=kv)
        return ENGINE_BYTES + found.load_bytes
