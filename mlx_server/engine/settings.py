"""The part of the configuration that the engine goes by."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from mlx_server.engine.generation.batch import BatchLimits
from mlx_server.engine.kv.kv_quantization import KvOf, KvQuantization, as_computed
from mlx_server.engine.prompt_cache.folder import BlockFolder
from mlx_server.engine.prompt_cache.store import BlockStore
from vestal.config import Config, canonical

_PERSIST_MOST_S, _PERSIST_SHARE = 10.0, 0.6
"""Who stops the engine kills it after `supervision.stop_s`, drain aside: the other stages need some of it."""

_PREFILL_STEP_TOKENS = 512 if sys.platform == "darwin" else 128
"""Half a second of a small model on a CPU; twice as much per step was no faster."""


@dataclass(frozen=True)
class CacheSettings:
    """The prompt cache: its folder, and what it may take in RAM and on disk; 0 is none."""

    folder: Path
    ram_bytes: int
    disk_bytes: int

    def open(self) -> BlockStore:
        return BlockStore(BlockFolder(self.folder), self.ram_bytes, self.disk_bytes)


@dataclass(frozen=True)
class EngineSettings:
    """Model names are canonical; a negative keep-alive means for ever.

    `memory_limit_bytes` None means a share of the machine's. `max_wait_s` bounds a wait for memory.
    """

    preload: tuple[str, ...]
    max_loaded_models: int
    keep_alive_s: float
    drain_s: float
    persist_s: float
    batch: BatchLimits
    cache: CacheSettings
    memory_limit_bytes: int | None = None
    wired_limit_bytes: int | None = None
    max_wait_s: float = 120.0
    kv_of: KvOf = as_computed

    @classmethod
    def from_config(cls, config: Config) -> EngineSettings:
        keep_alive_s = config.mlx.keep_alive_s
        return cls(
            preload=tuple(dict.fromkeys(canonical(name) for name in config.mlx.preload)),
            max_loaded_models=config.mlx.max_loaded_models,
            keep_alive_s=-1.0 if keep_alive_s == float("inf") else keep_alive_s,
            drain_s=config.mlx.drain_s,
            persist_s=min(_PERSIST_MOST_S, _PERSIST_SHARE * config.supervision.stop_s),
            batch=BatchLimits(config.mlx.max_running, _PREFILL_STEP_TOKENS),
            cache=CacheSettings(
                config.home.cache / "prompts",
                config.mlx.prompt_cache_ram_bytes,
                config.mlx.prompt_cache_disk_bytes,
            ),
            memory_limit_bytes=config.mlx.memory_limit_bytes,
            wired_limit_bytes=config.mlx.wired_limit_bytes,
            max_wait_s=config.mlx.max_wait_s,
            kv_of=lambda model: KvQuantization(*kv) if (kv := config.kv_quantization(model)) else None,
        )

    def keep_alive_of(self, model: str) -> float:
        """Preloaded models stay, others leave after the configured time without use."""
        return -1.0 if model in self.preload else self.keep_alive_s
