"""The settings of the engine, derived from the configuration."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from mlx_server.engine.generation.batch import BatchLimits
from mlx_server.engine.images import MAX_PIXELS
from mlx_server.engine.prompt_cache.disk.folder import BlockFolder
from mlx_server.engine.prompt_cache.store import BlockStore
from mlx_server.memory_forecast.kv_quantization import KvQuantization, KvQuantizationOf, never_quantized
from mlx_server.model_store import ModelEntry
from mlx_server.model_store.forecasts import PREFILL_STEP_TOKENS
from vestal.config import Config, canonical, find_named

_PERSIST_MOST_S, _PERSIST_SHARE = 10.0, 0.6
"""How long persisting the prompt cache may take, in seconds and as a share of `supervision.stop_s`. The
gateway kills an engine that needs more than `stop_s` to stop after its drain, and the other stages take time,
too."""


@dataclass(frozen=True)
class CacheSettings:
    """The settings of the prompt cache: its folder, and how many bytes it may take in RAM and on disk. A size
    of 0 disables that tier.
    """

    folder: Path
    ram_bytes: int
    disk_bytes: int

    def open(self) -> BlockStore:
        """Open the prompt cache in its folder, and return it."""
        return BlockStore(BlockFolder(self.folder), self.ram_bytes, self.disk_bytes)


@dataclass(frozen=True)
class EngineSettings:
    """The settings of the engine. Model names include their tags, as `canonical` returns them.

    The models `preload` are loaded at the start. A negative `keep_alive_s` keeps models loaded forever.
    During a shutdown, running requests first get `drain_s` seconds to end; then writing the prompt cache to
    disk may take `persist_s` seconds. `batch` limits how many requests of a model run together, and how many
    prompt tokens one step processes. `cache` holds the settings of the prompt cache.

    If `memory_limit_bytes` is None, the limit is a share of the machine's memory. `wired_limit_bytes` is
    Metal's limit of wired (not pageable) memory; None leaves the system's limit unchanged. `max_wait_s`
    limits how long a load or a request waits for memory. `max_repeated_tokens` limits how many equal tokens
    an answer may have in a row; 0 means no limit. `kv_of` returns how the keys and values of a model are
    quantized, or None if they are not. Images with more than `max_image_pixels` pixels are refused.
    `weight_digests` is the file that stores the digests of weight files, by which later damage to them is
    detected; None keeps the digests in memory only. `model_folders` are the folders in which models are
    installed, replaced and removed.
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
    max_repeated_tokens: int = 0
    kv_of: KvQuantizationOf = never_quantized
    max_image_pixels: int = MAX_PIXELS
    weight_digests: Path | None = None
    model_folders: tuple[Path, ...] = ()

    @classmethod
    def from_config(cls, config: Config) -> EngineSettings:
        """Return the engine's settings as derived from `config`."""
        keep_alive_s = config.mlx.keep_alive_s
        return cls(
            preload=tuple(
                dict.fromkeys(canonical(config.configured_name(name) or name) for name in config.mlx.preload)
            ),
            max_loaded_models=config.mlx.max_loaded_models,
            keep_alive_s=-1.0 if keep_alive_s == float("inf") else keep_alive_s,
            drain_s=config.mlx.drain_s,
            persist_s=min(_PERSIST_MOST_S, _PERSIST_SHARE * config.supervision.stop_s),
            batch=BatchLimits(config.mlx.max_running, PREFILL_STEP_TOKENS, config.mlx.drafting),
            cache=CacheSettings(
                config.home.cache / "prompts",
                config.mlx.prompt_cache_ram_bytes,
                config.mlx.prompt_cache_disk_bytes,
            ),
            memory_limit_bytes=config.mlx.memory_limit_bytes,
            wired_limit_bytes=config.mlx.wired_limit_bytes,
            max_wait_s=config.mlx.max_wait_s,
            max_repeated_tokens=config.mlx.max_repeated_tokens,
            max_image_pixels=config.mlx.max_image_pixels,
            weight_digests=config.home.weight_digests,
            model_folders=(config.models_dir, config.mlx.models_folder),
            kv_of=lambda model: KvQuantization(*kv) if (kv := config.kv_quantization(model)) else None,
        )

    def with_shared_weights(self, models: Iterable[ModelEntry]) -> EngineSettings:
        """Return the settings with the name of each preloaded model replaced by the name under which it is
        loaded, so that weights that several names share are loaded once. `models` are the installed models.
        """
        installed = list(models)

        def loaded_as(name: str) -> str:
            found = find_named(name, installed, lambda entry: entry.name)
            return found.loaded_as if found else name

        return replace(self, preload=tuple(dict.fromkeys(map(loaded_as, self.preload))))

    def keep_alive_of(self, model: str) -> float:
        """Return how many seconds `model` remains loaded while it is unused. A negative number means forever,
        which applies to preloaded models.
        """
        return -1.0 if model in self.preload else self.keep_alive_s
