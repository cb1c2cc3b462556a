"""Forecast an installed model's memory from its files, which may lack some of the figures."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

from mlx_server.memory_forecast.forecast import Forecast, forecast, forecast_from_weights_only
from mlx_server.memory_forecast.kv_quantization import KvQuantization
from mlx_server.memory_forecast.weights import Arithmetic, Headers
from mlx_server.model_store import ModelEntry
from mlx_server.model_store.files import weight_files

PREFILL_STEP_TOKENS = 512 if sys.platform == "darwin" else 128
"""Prompt tokens in one step. 128 take a small model half a second on a CPU; steps of 256 were not faster."""


@dataclass(frozen=True)
class Files:
    """The configuration and the weight headers in a model's folder, read without loading the model."""

    config: dict[str, Any]
    headers: Headers
    tokenizer_file_bytes: int = 0


def files_of(entry: ModelEntry) -> Files:
    """Return the configuration and headers of a model's folder. Raise UnreadableModel."""
    tokenizer = entry.path / "tokenizer.json"
    size = tokenizer.stat().st_size if tokenizer.is_file() else 0
    return Files(weight_files.read_config(entry.path), weight_files.read_headers(entry.path), size)


def forecast_of(
    entry: ModelEntry,
    files: Files,
    arithmetic: Arithmetic,
    *,
    step_tokens: int,
    kv: KvQuantization | None,
) -> Forecast:
    """Return the forecast of a model; if its files say too little, a forecast of its weights only.

    A model with an odd configuration may still load.
    """
    try:
        return forecast(
            files.config,
            files.headers,
            arithmetic,
            step_tokens=step_tokens,
            context_tokens=entry.context_tokens,
            embeds=entry.kind == "embed",
            tokenizer_file_bytes=files.tokenizer_file_bytes,
            kv=kv,
        )
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return forecast_from_weights_only(entry.weights_bytes)
