"""The engine's current state (steps, models, memory), which the MLX thread writes and the main thread reports
to the gateway.
"""

from __future__ import annotations

import psutil

from mlx_server.protocol import Alive, DraftUse, LoadedModelReport, MemoryUse, PromptCacheUse
from vestal.best_effort.failures import FAILURES


class Status:
    """Holds the engine's current state: the step count, the loaded models and the memory in use. The MLX
    thread writes the attributes, and the main thread sends them to the gateway in an `alive` event.

    No lock is needed, because each attribute is replaced as a whole.
    """

    def __init__(self) -> None:
        self.progress = 0
        self.working = False
        self.active_bytes = 0
        self.cached_bytes = 0
        self.loaded: tuple[LoadedModelReport, ...] = ()
        self.loading: str | None = None
        self.limit_bytes = 0
        self.memory = MemoryUse()
        self.prompt_cache = PromptCacheUse()
        self.drafts = DraftUse()
        self._process = psutil.Process()

    def advanced(self) -> None:
        """Increment the step count. A growing count shows that the MLX thread does not hang."""
        self.progress += 1

    def alive(self) -> Alive:
        """Return the `alive` event, which holds the current value of each attribute.

        MLX's counters and the process's resident memory each miss some of the memory that Metal holds. So the
        event's footprint is the larger of the resident memory and the sum of what MLX's arrays, its free
        memory and the prompt cache hold, as in the memory ledger (`MemoryReading.own_bytes`).
        """
        counted_bytes = self.active_bytes + self.cached_bytes + self.prompt_cache.ram_bytes
        return Alive(
            self.progress,
            self.working,
            self.active_bytes,
            self.loaded,
            self.loading,
            footprint_bytes=max(self._process.memory_info().rss, counted_bytes),
            limit_bytes=self.limit_bytes,
            memory=self.memory,
            prompt_cache=self.prompt_cache,
            drafts=self.drafts,
            log_lines_dropped=FAILURES.count("log"),
        )
