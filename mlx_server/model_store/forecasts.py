"""Forecast how much memory a model takes, from the files of an installed model or of one on the hub. If the
files lack a needed value, the forecast counts only the weights.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from typing import Any

from mlx_server.memory_forecast.fit import default_limit_bytes, metal_limit_bytes
from mlx_server.memory_forecast.forecast import Forecast, forecast, forecast_from_weights_only
from mlx_server.memory_forecast.kv_quantization import KvQuantization
from mlx_server.memory_forecast.weights import Arithmetic, Headers
from mlx_server.model_store.catalog import ModelEntry
from mlx_server.model_store.errors import DAMAGE
from mlx_server.model_store.files import image_support, weight_files
from vestal.config import Config
from vestal.platform import commands, memory

ON_METAL = sys.platform == "darwin"
"""Whether MLX computes on Metal, which it does on every Mac. This is decided by the platform, because only
the engine may import MLX.
"""
METAL = Arithmetic(dense_float32=False, fused_attention=True)
THIS_MACHINE = Arithmetic(dense_float32=not ON_METAL, fused_attention=ON_METAL)
METAL_STEP_TOKENS = 512
PREFILL_STEP_TOKENS = METAL_STEP_TOKENS if ON_METAL else 128
"""How many prompt tokens a prefill step has. On a CPU a small model takes half a second for 128; steps of 256
were not faster.
"""


@dataclass(frozen=True)
class Files:
    """The content of a model's folder from which its memory is forecast: config.json, the headers of the
    weight files, and the size of tokenizer.json (0 if there is none).
    """

    config: dict[str, Any]
    headers: Headers
    tokenizer_file_bytes: int = 0


def files_of(entry: ModelEntry) -> Files:
    """Return what a forecast needs of an installed model's files: config.json, the headers of the weight
    files, and the size of tokenizer.json. Raises UnreadableModel if config.json or a header cannot be read.
    """
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
    """Return the memory forecast of the model `entry`, with its adapter and its draft model.

    `files` is what `files_of` returns for the model; the files of the draft model are read here. `arithmetic`
    says how MLX computes, which decides whether weights become float32 in memory. `step_tokens` is the number
    of prompt tokens in a prefill step, `kv` the quantization of the KV cache (None: not quantized).

    If the files lack a value that the forecast needs, only the weights are counted, because a model with an
    odd configuration may still load. Raises UnreadableModel if the draft model's files cannot be read.
    """
    of_base = forecast_of_files(
        files,
        arithmetic,
        kind=entry.kind,
        context_tokens=entry.context_tokens,
        weights_bytes=entry.weights_bytes,
        step_tokens=step_tokens,
        kv=kv,
    )
    draft = None
    if entry.draft is not None:  # its keys and values are never quantized
        own = files_of(entry.draft)
        draft = forecast_of(entry.draft, own, arithmetic, step_tokens=step_tokens, kv=None)
    return replace(of_base, adapter_bytes=_adapter_bytes(entry, arithmetic), draft=draft)


def _adapter_bytes(entry: ModelEntry, arithmetic: Arithmetic) -> int:
    """Return how many bytes the model's adapter takes in memory; 0 without an adapter. The adapter is
    converted to float32 if `arithmetic` says that weights are.
    """
    if entry.adapter is None:
        return 0
    return entry.adapter.parameters * 4 if arithmetic.dense_float32 else entry.adapter.weights_bytes


def forecast_of_files(
    files: Files,
    arithmetic: Arithmetic,
    *,
    kind: str,
    context_tokens: int,
    weights_bytes: int,
    step_tokens: int = PREFILL_STEP_TOKENS,
    kv: KvQuantization | None = None,
) -> Forecast:
    """Return the memory forecast of a model, without an adapter or a draft model, from `files`: the content
    of its config.json, the headers of its weight files, and the size of its tokenizer.json.

    `arithmetic` says how MLX computes, which decides whether weights become float32 in memory. `kind` is the
    model's task: `generate`, `embed` or `rerank`. `step_tokens` is the number of prompt tokens in a prefill
    step, `kv` the quantization of the KV cache (None: not quantized).

    If `files` lacks a value that the forecast needs, the forecast counts only `weights_bytes`.
    """
    try:
        return forecast(
            files.config,
            files.headers,
            arithmetic,
            step_tokens=step_tokens,
            context_tokens=context_tokens,
            embeds=kind != "generate",
            tokenizer_file_bytes=files.tokenizer_file_bytes,
            kv=kv,
            reads_images=files.config.get("model_type") in image_support.FAMILIES,
        )
    except DAMAGE:  # the configuration may hold anything
        return forecast_from_weights_only(weights_bytes)


def forecast_of_installed(config: Config, entry: ModelEntry) -> Forecast:
    """Return the memory forecast of an installed model on this machine, with its configured KV quantization.
    Raises UnreadableModel or OSError if its files cannot be read.
    """
    kv = kv_quantization_of(config, entry.name)
    return forecast_of(entry, files_of(entry), THIS_MACHINE, step_tokens=PREFILL_STEP_TOKENS, kv=kv)


def kv_quantization_of(config: Config, name: str) -> KvQuantization | None:
    """Return how the configuration quantizes the KV cache of the model `name`; None if it does not."""
    bits = config.kv_quantization(name)
    return KvQuantization(*bits) if bits else None


def machine_limit_bytes(config: Config) -> int:
    """Return how many bytes of memory models may take on this machine: as configured, or the engine's own
    default.
    """
    if (configured := config.mlx.memory_limit_bytes) is not None:
        return configured
    total = memory.read().total_bytes
    return default_limit_bytes(total, metal_limit_bytes(total, wired_limit_bytes()) if ON_METAL else None)


def wired_limit_bytes() -> int:
    """Return the wired limit in bytes that is set on this Mac (`iogpu.wired_limit_mb`); 0 if none is set or
    this is no Mac.
    """
    text = commands.output("sysctl", "-n", "iogpu.wired_limit_mb") if ON_METAL else None
    return int(text) * 1024**2 if text and text.strip().isdigit() else 0
