"""The figures that the MLX thread writes, and the main thread reports to the gateway."""

from __future__ import annotations

import psutil

from mlx_server.protocol import Alive, DraftUse, LoadedModelReport, MemoryUse, PromptCacheUse
from vestal.best_effort.failures import FAILURES


class Status:
    """The engine's current figures. The MLX thread writes the attributes, and the main thread reads them for
    `alive`.

    No lock is needed, because each attribute is replaced as a whole.
    """

    def __init__(self) -> None:
        self.progress = 0
        self.working = False
        self.active_bytes = 0
        self.loaded: tuple[LoadedModelReport, ...] = ()
        self.loading: str | None = None
        self.limit_bytes = 0
        self.memory = MemoryUse()
        self.prompt_cache = PromptCacheUse()
        self.drafts = DraftUse()
        self._process = psutil.Process()

    def advanced(self) -> None:
        """Count one more step of any kind. The count shows that the MLX thread does not hang."""
        self.progress += 1

    def alive(self) -> Alive:
        """Return the `alive` event with the current figures.

        MLX's counter and the process's resident memory each miss some of the memory that Metal holds, so the
        footprint is the larger of the two.
        """
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
            drafts=self.drafts,
            log_lines_dropped=FAILURES.count("log"),
        )
