"""The section `mlx`: the MLX server, which consists of gateway and engine."""

from pathlib import Path
from typing import Annotated

from pydantic import Field, field_validator

from vestal.config import units
from vestal.config.settings.field_types import (
    Address,
    BaseUrl,
    Count,
    Key,
    KvBits,
    KvGroupSize,
    Origin,
    Port,
    PositiveCount,
    Seconds,
    SecondsOrZero,
    Section,
)

MIN_PROGRESS_TIMEOUT_S = 3.0
"""Three times the interval at which engines report. With 0.9 s, healthy idle engines were once replaced."""


class MlxSection(Section):
    """The MLX server. Sizes are written as in `2g`, durations as in `5m`.

    `bind`                  addresses to listen on besides loopback and the Docker bridge
    `origins`               web pages that may use the server besides those of this machine and of programs
                            with a web view; `*` stands for any text
    `store`                 the folder of installed models; None: `$VESTAL_HOME/models`
    `models_folder`         a folder of the user's: each MLX model in it is served under its folder's name
    `preload`               the models that are loaded at the start
    `max_running`           the most requests that are computed at the same time
    `max_queued`            the most requests that may wait; further ones are refused
    `max_wait_s`            how long a request waits for an engine that restarts
    `max_loaded_models`     the most models that are loaded at the same time
    `memory_limit`          the memory that the engine may use; None: a share of the machine's memory
    `wired_limit`           the memory that Metal may wire; None: the system's own limit
    `keep_alive`            how long an unused model stays loaded; negative: forever
    `drain_s`               how long a stop waits for running requests
    `progress_timeout_s`    an engine that has work and makes no progress for this long is restarted, and also
                            one that reports nothing for this long
    `probe_interval_s`      how often an idle engine is asked for a token
    `warm_spare`            whether a second engine process waits, with its imports done, to become the next
                            engine
    `recycle_above`         an engine that holds more memory is replaced; None: 15 % above its limit
    `recycle_after_s`       an engine of this age is replaced; 0: never
    `kv_bits`               how many bits each number in the KV cache has; `none`: it is not quantized
    `kv_group_size`         how many numbers of a quantized KV cache share one scale and one bias
    `prompt_cache_ram`      the size of the prompt cache in memory; 0 switches it off
    `prompt_cache_disk`     the size of the prompt cache on disk; 0 switches it off
    `max_body_bytes`        the longest request body that is read
    `body_budget_bytes`     the most memory that the bodies over 64 KiB of all requests take up together
    `image_urls`            whether images are fetched from the http and https addresses that requests name
    `max_images`            the most images in one request
    `max_image_bytes`       the largest file of an image
    `max_image_pixels`      the most pixels of an image
    `max_repeated_tokens`   the most equal tokens in a row, after which an answer is ended; 0: no limit
    `drafting`              whether several tokens of an answer may be drafted, and verified in one step
    `keep_answers_s`        how long clients can fetch an answer again; 0: no answer is saved
    `peers`                 MLX servers on other machines, which finish what this one cannot serve
    `peer_key`              the key that these servers share; without it, no request goes to another machine
    """

    port: Port = 11435
    bind: list[Address] = []
    origins: list[Origin] = []
    api_key: str | None = Field(default=None, repr=False)
    store: Path | None = None
    models_folder: Path = Path("~/mlx-models")
    preload: list[str] = ["smollm2:135m", "all-minilm"]
    max_running: PositiveCount = 5
    max_queued: Count = 64
    max_wait_s: Seconds = 120.0
    max_loaded_models: PositiveCount = 3
    memory_limit: str | None = None
    wired_limit: str | None = None
    keep_alive: str = "5m"
    drain_s: SecondsOrZero = 30.0
    progress_timeout_s: Annotated[Seconds, Field(ge=MIN_PROGRESS_TIMEOUT_S)] = 30.0
    probe_interval_s: Seconds = 30.0
    warm_spare: bool = True
    recycle_above: str | None = None
    recycle_after_s: SecondsOrZero = 0.0
    kv_bits: KvBits = "none"
    kv_group_size: KvGroupSize = 64
    prompt_cache_ram: str = "2g"
    prompt_cache_disk: str = "10g"
    max_body_bytes: PositiveCount = 32 * 1024 * 1024
    body_budget_bytes: PositiveCount = 128 * 1024 * 1024
    image_urls: bool = False
    max_images: PositiveCount = 32
    max_image_bytes: PositiveCount = 20 * 1024 * 1024
    max_image_pixels: PositiveCount = 50_000_000
    max_repeated_tokens: Count = 30
    drafting: bool = True
    keep_answers_s: SecondsOrZero = 3600.0
    peers: list[BaseUrl] = []
    peer_key: Key | None = Field(default=None, repr=False)

    @field_validator("keep_alive")
    @classmethod
    def _is_duration(cls, value: str) -> str:
        units.duration_s(value)
        return value

    @field_validator("prompt_cache_ram", "prompt_cache_disk")
    @classmethod
    def _is_size(cls, value: str) -> str:
        units.size_bytes(value)
        return value

    @field_validator("memory_limit", "wired_limit", "recycle_above")
    @classmethod
    def _is_positive_size(cls, value: str | None) -> str | None:
        if value is not None and units.size_bytes(value) <= 0:
            raise ValueError("give more than nothing, such as 20g")
        return value

    @property
    def keep_alive_s(self) -> float:
        """Return `keep_alive` in seconds; `inf` for forever."""
        return units.duration_s(self.keep_alive)

    @property
    def prompt_cache_ram_bytes(self) -> int:
        """Return `prompt_cache_ram` in bytes."""
        return units.size_bytes(self.prompt_cache_ram)

    @property
    def prompt_cache_disk_bytes(self) -> int:
        """Return `prompt_cache_disk` in bytes."""
        return units.size_bytes(self.prompt_cache_disk)

    @property
    def memory_limit_bytes(self) -> int | None:
        """Return `memory_limit` in bytes; None if it is not set."""
        return None if self.memory_limit is None else units.size_bytes(self.memory_limit)

    @property
    def wired_limit_bytes(self) -> int | None:
        """Return `wired_limit` in bytes; None if it is not set."""
        return None if self.wired_limit is None else units.size_bytes(self.wired_limit)

    @property
    def recycle_above_bytes(self) -> int | None:
        """Return `recycle_above` in bytes; None if it is not set."""
        return None if self.recycle_above is None else units.size_bytes(self.recycle_above)
