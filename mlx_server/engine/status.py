"""What the MLX thread lets the link's thread see: plain attributes, written by one, read by the other."""

from __future__ import annotations

import psutil

from mlx_server.protocol import Alive, LoadedModelReport, MemoryUse, PromptCacheUse


class Status:
    """A snapshot for `alive`, kept current by the MLX thread. Each attribute is replaced whole."""

    def __init__(self) -> None:
        self.progress = 0
        self.working = False
        self.active_bytes = 0
        self.loaded: tuple[LoadedModelReport, ...] = ()
        self.loading: str | None = None
        self.limit_bytes = 0
        self.memory = MemoryUse()
        self.prompt_cache = PromptCacheUse()
        self._process = psutil.Process()

    def advanced(self) -> None:
        """One more step of any kind: the proof that the MLX thread is not wedged."""
        self.progress += 1

    def alive(self) -> Alive:
        """The event for now. MLX's counters miss some of what Metal holds, and the other way round."""
        return Alive(
            self.progress,
            self.working,
            self.active_bytes,
            self.loaded,
            self.loading,
            footprint_bytes=max(self._process.memory_info().rss, self.active_bytes),
            limit_bytes=self.limit_bytes,
            memory=self.memory,
            prompt_cache=self.prompt_cache,
        )
