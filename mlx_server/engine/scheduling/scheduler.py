"""The MLX thread's loop: does one bit of everything in turn.

MLX's streams belong to a thread, so nothing of MLX is touched elsewhere. Operations come in through a queue,
events leave through `emit`, a burst a turn. A turn: take what has come, load one slice of a model,
one step of each model's requests, unload what has expired. An exception from a step is not survived: after a
Metal error nothing in the process can be trusted; the gateway replaces the engine and resumes the requests.
"""

from __future__ import annotations

import queue
import time
from collections.abc import Callable

import mlx.core as mx

from mlx_server.engine.background_workers import BackgroundWorkers
from mlx_server.engine.log import log_event
from mlx_server.engine.memory import readings
from mlx_server.engine.memory.wait_policy import RETRY_S
from mlx_server.engine.scheduling.kv_reservations import keep_up
from mlx_server.engine.scheduling.loads import Catalog
from mlx_server.engine.scheduling.serving import Serving
from mlx_server.engine.settings import EngineSettings
from mlx_server.engine.status import Status
from mlx_server.protocol import Event, Op, Ready, Shutdown

Emit = Callable[[list[Event]], None]
Inbox = queue.SimpleQueue[Op | None]
"""Operations; None only wakes: the compiler has something ready."""

FIGURES_S = 0.5
"""How often the figures are added up while there is work."""

IDLE_S = 5.0
"""With nothing to do for so long, the engine makes ready what may be wanted later. That holds all threads up
for 0.3 s, so not at once: after a restart the next turn of a conversation comes within a second or two."""


class Scheduler:
    """`run` is the MLX thread's work until a shutdown is asked for; `drain` goes on for a while after it."""

    def __init__(
        self,
        settings: EngineSettings,
        catalog: Catalog,
        inbox: Inbox,
        emit: Emit,
        status: Status,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings, self._inbox, self._status = settings, inbox, status
        self._send, self._clock = emit, clock
        status.limit_bytes = readings.limit_bytes(settings.memory_limit_bytes)
        self.serving = Serving(settings, catalog, BackgroundWorkers(lambda: inbox.put(None)), clock)
        self._started_s = clock()
        self._ready = False
        self._figures_at_s = float("-inf")
        self._kv_bytes: dict[str, int] = {}
        self._draining_until: float | None = None

    def run(self) -> float:
        """Serve until told to stop; the seconds that the drain may take."""
        self.serving.preload()
        while self._draining_until is None:
            self._turn()
        return max(self._draining_until - self._clock(), 0.0)

    def drain(self, seconds: float) -> int:
        """Go on with what is in flight for so long; how many are left."""
        self._draining_until = self._clock() + seconds
        while self.serving.working and self._clock() < self._draining_until:
            self._take_all()
            self._step()
            self.publish()
        return sum(len(held.runner) for held in self.serving.models.all())

    def publish(self) -> None:
        """Sends what has happened, and notes how things stand."""
        status, serving, now = self._status, self.serving, self._clock()
        status.advanced()
        status.working = serving.working
        status.active_bytes = mx.get_active_memory()
        if now - self._figures_at_s >= FIGURES_S or not status.working:
            self._figures_at_s = now
            self._add_up()
        status.loaded = serving.models.loaded(now, self._kv_bytes)
        status.loading = serving.loads.loading
        if serving.out:
            events, serving.out = serving.out, []
            self._send(events)

    def _add_up(self) -> None:
        serving, status = self.serving, self._status
        self._kv_bytes = serving.models.kv_bytes()
        status.prompt_cache = serving.store.use()
        held = sum(self._kv_bytes.values())
        status.memory = serving.guard.use(held, status.prompt_cache.ram_bytes)

    # --- a turn ---

    def _turn(self) -> None:
        serving = self.serving
        self._say_ready()
        self._take_all()
        serving.load()
        serving.start_waiting()
        self._step()
        serving.expire()
        serving.give_back_freed()
        self.publish()

    def _say_ready(self) -> None:
        if self._ready or self.serving.awaited:
            return
        self._ready = True
        loaded = tuple(held.entry.name for held in self.serving.models.all())
        start_s = self._clock() - self._started_s
        log_event("engine_ready", loaded=loaded, start_s=round(start_s, 3))
        self.serving.out.append(Ready(loaded, start_s))

    def _step(self) -> None:
        serving = self.serving
        for held in serving.models.all():
            if not held.runner.can_step:
                continue
            keep_up(held, serving.guard)
            serving.out.extend(held.runner.step(self._clock))
            if not len(held.runner):
                serving.models.rest(held, self._clock())
            self.publish()
            held.runner.tidy()

    # --- what comes in ---

    def _take_all(self) -> None:
        """All that has come; with nothing else to do, wait for the next."""
        try:
            if not self.serving.has_steps and not self.serving.out:
                self._take(self._wait())
            while self._draining_until is None or not self._inbox.empty():
                self._take(self._inbox.get_nowait())
        except queue.Empty:
            pass

    def _take(self, op: Op | None) -> None:
        if isinstance(op, Shutdown):
            # Asked again, it may drain for less than first told, never for longer.
            seconds = self._settings.drain_s if op.drain_s is None else op.drain_s
            until = self._clock() + seconds
            self._draining_until = min(until, self._draining_until or until)
            self.serving.refusing = True
        elif op is not None:
            self.serving.take(op)

    def _wait(self) -> Op | None:
        """The next operation. Raises queue.Empty where something is to be done without one."""
        wait_s = self._idle_s()
        if not self.serving.working and wait_s > IDLE_S:
            try:
                return self._inbox.get(timeout=IDLE_S)
            except queue.Empty:
                self._use_idle_moment()
            wait_s = self._idle_s()
        return self._inbox.get(timeout=None if wait_s == float("inf") else wait_s)

    def _use_idle_moment(self) -> None:
        for held in self.serving.models.all():
            held.runner.look_ahead()
        self.serving.store.write_back()

    def _idle_s(self) -> float:
        """Until a model expires, the drain does, or memory is looked at again for those that wait for it."""
        serving, now = self.serving, self._clock()
        until = serving.models.next_expiry_s()
        if self._draining_until is not None:
            until = min(until, self._draining_until)
        if serving.loads or serving.starts.backlog:
            until = min(until, now + RETRY_S)
        return max(until - now, 0.0)
