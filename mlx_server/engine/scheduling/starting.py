"""Starts generations on loaded models, in order of arrival, as memory allows. Lives in the MLX thread."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from mlx_server.engine.errors import EngineError
from mlx_server.engine.log import log_event
from mlx_server.engine.memory.guard import MemoryGuard
from mlx_server.engine.memory.refusals import MustWait
from mlx_server.engine.memory.wait_policy import Backlog, Queued
from mlx_server.engine.scheduling.loaded_models import LoadedModels
from mlx_server.protocol import Event, Generate


class Starts:
    """`backlog` holds what waits; `reload` takes back a request whose model was unloaded meanwhile."""

    def __init__(
        self, models: LoadedModels, guard: MemoryGuard, max_wait_s: float, reload: Callable[[Generate], None]
    ) -> None:
        self.backlog = Backlog(max_wait_s)
        self._models, self._guard, self._reload = models, guard, reload

    def step(self, now: float) -> Iterator[Event]:
        """Start what fits, up to the first that does not; the events that this causes at once."""
        while (queued := self.backlog.due(now)) is not None:
            try:
                events = self._start(queued, now)
            except MustWait as wait:
                if (refusal := self.backlog.postpone(wait, now)) is None:
                    return
                log_event("request_refused", cause=str(refusal), id=queued.op.id, code=refusal.code)
                yield refusal.failed(queued.op.id)
            except EngineError as error:
                self.backlog.take()
                yield error.failed(queued.op.id)
            else:
                self.backlog.take()
                yield from events

    def _start(self, queued: Queued, now: float) -> list[Event]:
        """Raises RequestError, InsufficientMemory, MustWait."""
        op = queued.op
        held = self._models.get(op.model)
        if held is None:
            self._reload(op)
            return []
        if queued.wait:  # not tokenized again for nothing
            self._guard.check(op.model, *queued.wait.tokens)
        return held.runner.start(op, now, queued.load_s)
