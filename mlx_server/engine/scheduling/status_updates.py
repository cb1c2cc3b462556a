"""Update the engine's `Status` from the MLX thread."""

from __future__ import annotations

from dataclasses import asdict

from mlx_server.engine.scheduling.backend import Backend
from mlx_server.engine.scheduling.loaded_models import LoadedModels
from mlx_server.engine.scheduling.loads import Loads
from mlx_server.engine.status import Status
from mlx_server.protocol import DraftUse

FIGURES_EVERY_S = 0.5
"""How often the figures of memory and caches are added up while the engine works. When it is idle, they are
added up at each update."""


class StatusUpdates:
    """Writes the engine's current state to `status` at each call of `update`: the step count, the loaded
    models, and the memory that models and caches take.

    `loads` knows which model is being loaded. `backend` knows how much memory weights take, how much is
    reserved for requests, how much MLX and the prompt cache hold, and how many tokens were drafted.
    """

    def __init__(
        self,
        status: Status,
        models: LoadedModels,
        loads: Loads,
        backend: Backend,
    ) -> None:
        self._status, self._models, self._loads, self._backend = status, models, loads, backend
        self._figures_at_s = float("-inf")
        self._kv_bytes: dict[str, int] = {}

    def update(self, working: bool, now: float) -> None:
        """Increment the step count, and write the current state of models and memory to the status. `working`
        is True if the engine has a request or loads a model; the memory of the caches is then added up only
        every FIGURES_EVERY_S seconds. `now` is the current monotonic time.
        """
        status = self._status
        status.advanced()
        status.working = working
        status.active_bytes = self._backend.active_bytes()
        status.cached_bytes = self._backend.cached_bytes()
        if now - self._figures_at_s >= FIGURES_EVERY_S or not working:
            self._figures_at_s = now
            self._add_up()
        status.loaded = self._models.reports(now, self._kv_bytes)
        status.loading = self._loads.loading

    def _add_up(self) -> None:
        self._kv_bytes = self._models.kv_bytes()
        self._status.prompt_cache = self._backend.prompt_cache.usage()
        self._status.drafts = DraftUse(**asdict(self._backend.draft_counts))
        kv_bytes = sum(self._kv_bytes.values())
        cache = self._status.prompt_cache
        self._status.memory = self._backend.guard.use(kv_bytes, cache.ram_bytes + cache.ready_bytes)
