"""Define the figures that the engine reports each second: loaded models, memory, prompt cache, drafted
tokens.
"""

from __future__ import annotations

from typing import Literal

from mlx_server.protocol.base import Value


class LoadedModelReport(Value, frozen=True):
    """A model in memory.

    `bytes` is the size of its weights, `kv_bytes` the size of the KV caches of its requests; both are GPU
    memory if `on_gpu`. `expires_in_s` is None if the model stays until a client unloads it. `keep_alive_s` is
    the keep-alive that a request named last; None if none has named one, so that the default applies.
    """

    model: str
    kind: Literal["generate", "embed", "rerank"]
    bytes: int
    context_tokens: int
    expires_in_s: float | None = None
    kv_bytes: int = 0
    on_gpu: bool = False
    keep_alive_s: float | None = None


class MemoryUse(Value, frozen=True):
    """The entries of the engine's memory ledger.

    `kv_bytes` is the size of the KV caches of running requests; `promised_bytes` is the total reserved for
    running requests, `kv_bytes` included. `prompt_cache_bytes` is what the prompt cache holds in memory:
    `ram_bytes` and `ready_bytes` of PromptCacheUse.
    """

    weights_bytes: int = 0
    kv_bytes: int = 0
    promised_bytes: int = 0
    prompt_cache_bytes: int = 0


class PromptCacheUse(Value, frozen=True):
    """The size of the prompt cache, and counts of blocks since the engine started.

    `ram_bytes` are blocks in RAM, `ready_bytes` the caches of ended requests, which are in MLX's memory; the
    limit `ram_limit_bytes` is for both together. `misses` counts the blocks that had to be computed, because
    they had never been stored, their file had disappeared (`gone`), or they were corrupt (`broken`).
    `written` counts the blocks written to disk, `not_written` the blocks whose write failed.
    """

    ram_bytes: int = 0
    ready_bytes: int = 0
    ram_limit_bytes: int = 0
    disk_bytes: int = 0
    disk_limit_bytes: int = 0
    hits_ram: int = 0
    hits_disk: int = 0
    misses: int = 0
    gone: int = 0
    broken: int = 0
    written: int = 0
    written_bytes: int = 0
    not_written: int = 0


class DraftUse(Value, frozen=True):
    """Counts of drafted tokens since the engine started: how many were drafted (`guessed`), and how many of
    these passed verification (`accepted`).

    `lookup` tokens were drafted from the text and the grammar, `model` tokens by draft models.
    """

    lookup_guessed: int = 0
    lookup_accepted: int = 0
    model_guessed: int = 0
    model_accepted: int = 0
