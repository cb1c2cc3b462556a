"""The MLX thread: owns every model, batch and cache, and does one bit of everything in turn.

MLX's streams belong to a thread, so nothing of MLX is touched elsewhere. Operations come in through a queue,
events leave through `emit`, a burst a turn. A turn: take what has come, load one slice of a model,
one step of each model's requests, unload what has expired. An exception from a step is not survived: after a
Metal error nothing in the process can be trusted; the gateway replaces the engine and resumes the requests.
"""

from __future__ import annotations

import queue
import time
from collections.abc import Callable
from dataclasses import replace

import mlx.core as mx

from host_agent.config import canonical
from mlx_server.engine.beside import Helpers
from mlx_server.engine.errors import EngineError
from mlx_server.engine.growth import keep_up
from mlx_server.engine.loads import Advanced, Arrived, Catalog, Evicted, Loads, Refused
from mlx_server.engine.log import log_event
from mlx_server.engine.memory import host
from mlx_server.engine.memory.ledger import Fits
from mlx_server.engine.memory.patience import RETRY_S, Patience
from mlx_server.engine.models import Held, Models, release_memory
from mlx_server.engine.probe import probe
from mlx_server.engine.settings import EngineSettings
from mlx_server.engine.starting import Starts
from mlx_server.engine.status import Status
from mlx_server.engine.waiting import Waiting
from mlx_server.protocol import (
    Cancel,
    Done,
    Embed,
    Event,
    Failed,
    Generate,
    Load,
    Loaded,
    Loading,
    Op,
    Probe,
    Probed,
    Ready,
    Shutdown,
    Unload,
    Unloaded,
    Usage,
)

Emit = Callable[[list[Event]], None]
Inbox = queue.SimpleQueue[Op | None]
"""Operations; None only wakes: the compiler has something ready."""

PRELOAD = "preload/"
"""Ids of the loads that the engine asks of itself start with this."""

PERSIST_S = 10.0
"""What a shutdown gives to the disk; what is not written then is computed again one day."""

IDLE_S = 5.0
"""With nothing to do for so long, the engine makes ready what may be wanted later. That holds all threads up
for 0.3 s, so not at once: after a restart the next turn of a conversation comes within a second or two."""


class Scheduler:
    """`run` is the MLX thread's work until a shutdown is asked for; `drain` and the rest are its stages."""

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
        self._store = settings.cache.open()
        status.limit_bytes = host.limit_bytes(settings.memory_limit_bytes)
        self._guard = host.memory_guard(
            settings.memory_limit_bytes,
            settings.batch.prefill_step_tokens,
            lambda: self._store.ram_bytes,
            settings.kv_of,
        )
        helpers = Helpers(lambda: inbox.put(None))
        self._models = Models(
            settings.max_loaded_models,
            settings.batch,
            settings.keep_alive_of,
            helpers,
            self._store,
            self._guard,
            settings.kv_of,
        )
        self._loads = Loads(catalog, self._models, self._guard, Patience(settings.max_wait_s))
        reload = self._loads.waiting.add
        self._starts = Starts(self._models, self._guard, settings.max_wait_s, reload)
        self._guard.tenants = lambda: self._models.tenants(self._starts.backlog.awaits)
        self._guard.relieve = self._relieve
        self._out: list[Event] = []
        self._awaited: set[str] = set()  # preloads that `ready` waits for
        self._started_s = clock()
        self._ready = self._freed = False
        self._draining_until: float | None = None

    # --- the loop ---

    def run(self) -> float:
        """Serve until told to stop; the seconds that the drain may take."""
        for name in self._settings.preload:
            self._awaited.add(PRELOAD + name)
            self._take(Load(PRELOAD + name, name, self._settings.keep_alive_of(name)))
        while self._draining_until is None:
            self._turn()
        return max(self._draining_until - self._clock(), 0.0)

    def _turn(self) -> None:
        self._say_ready()
        self._take_all()
        self._load()
        self._out.extend(self._starts.step(self._clock()))
        self._step()
        self._expire()
        if self._freed:  # not before the last frame that knew the dropped model has ended
            self._freed = False
            release_memory()
        self._publish()

    def _take_all(self) -> None:
        """All that has come; with nothing else to do, wait for the next."""
        try:
            if not self._has_steps() and not self._out:
                self._take(self._wait())
            while self._draining_until is None or not self._inbox.empty():
                self._take(self._inbox.get_nowait())
        except queue.Empty:
            pass

    def _wait(self) -> Op | None:
        """The next operation. Raises queue.Empty where something is to be done without one."""
        wait_s = self._idle_s()
        if not self._working() and wait_s > IDLE_S:
            try:
                return self._inbox.get(timeout=IDLE_S)
            except queue.Empty:
                for held in self._models.all():
                    held.runner.look_ahead()
                self._store.write_back()
            wait_s = self._idle_s()
        return self._inbox.get(timeout=None if wait_s == float("inf") else wait_s)

    def _idle_s(self) -> float:
        """Until a model expires, the drain does, or memory is looked at again for those that wait for it."""
        until, now = self._models.next_expiry_s(), self._clock()
        if self._draining_until is not None:
            until = min(until, self._draining_until)
        if self._loads or self._starts.backlog:
            until = min(until, now + RETRY_S)
        return max(until - now, 0.0)

    def _working(self) -> bool:
        return bool(self._loads) or bool(self._starts.backlog) or self._running()

    def _running(self) -> bool:
        return any(len(held.runner) for held in self._models.all())

    def _has_steps(self) -> bool:
        """Is there anything to do at once?"""
        can_step = any(held.runner.can_step for held in self._models.all())
        return not self._loads.blocked or can_step or self._starts.backlog.due(self._clock()) is not None

    def _step(self) -> None:
        for held in self._models.all():
            if not held.runner.can_step:
                continue
            keep_up(held, self._guard)
            self._out.extend(held.runner.step(self._clock))
            if not len(held.runner):
                self._models.rest(held, self._clock())
            self._publish()
            held.runner.tidy()

    def _publish(self) -> None:
        status, now = self._status, self._clock()
        status.advanced()
        status.working = self._working()
        status.active_bytes = mx.get_active_memory()
        status.loaded = self._models.loaded(now)
        status.loading = self._loads.loading
        if self._out:
            events, self._out = self._out, []
            self._send(events)

    # --- operations ---

    def _take(self, op: Op | None) -> None:
        if isinstance(op, (Generate, Embed, Load, Unload)):
            op = replace(op, model=canonical(op.model))
        match op:
            case Generate() | Embed() | Load() if self._draining_until is not None:
                message = "The engine is shutting down; the request can be sent again."
                self._out.append(Failed(op.id, "engine_unavailable", message, retryable=True))
            case Generate() | Embed() | Load():
                self._request(op)
            case Cancel():
                self._cancel(op)
            case Unload():
                self._unload(op)
            case Probe():
                ok, detail = probe([held.weights for held in self._models.all()])
                self._out.append(Probed(op.id, ok, detail))
            case Shutdown():
                # Asked again, it may drain for less than first told, never for longer.
                seconds = self._settings.drain_s if op.drain_s is None else op.drain_s
                until = self._clock() + seconds
                self._draining_until = min(until, self._draining_until or until)

    def _request(self, op: Waiting) -> None:
        held = self._models.get(op.model)
        if held is None:
            self._loads.waiting.add(op)
        else:
            self._start(held, op, load_s=0.0)

    def _start(self, held: Held, op: Waiting, load_s: float) -> None:
        now = self._clock()
        self._models.touch(held, op.keep_alive_s, now)
        if isinstance(op, Load):
            self._awaited.discard(op.id)
            self._out.append(Loaded(held.entry.name, held.bytes, load_s, op.id))
            return
        if isinstance(op, Generate):
            self._starts.backlog.put(op, load_s)
            self._out.extend(self._starts.step(now))
            return
        try:
            self._out.extend(held.runner.start(op, now, load_s))
        except EngineError as error:
            self._out.append(error.failed(op.id))

    def _relieve(self, fits: Fits) -> None:
        """Make room, in the ledger's order: idle caches, then idle models."""
        for held in [held for name in fits.evict if (held := self._models.get(name))]:
            self._drop(held, "evicted")
        if fits.drop_caches:
            self._store.give_back(fits.lacking_bytes)
        release_memory()

    def _cancel(self, op: Cancel) -> None:
        now = self._clock()
        if self._loads.waiting.remove(op.id) or self._starts.backlog.remove(op.id):
            self._out.append(Done(op.id, "cancelled", Usage(0, 0)))
            return
        for held in self._models.all():
            if done := held.runner.cancel(op.id, now):
                self._out.append(done)
                held.runner.tidy()
                if not len(held.runner):
                    self._models.rest(held, now)
                return

    def _unload(self, op: Unload) -> None:
        held = self._models.get(op.model)
        if held is None:
            self._out.append(Unloaded(op.model, op.id))
        else:
            held.unload_ids.append(op.id)

    # --- loading and unloading ---

    def _load(self) -> None:
        for outcome in self._loads.step():
            match outcome:
                case Advanced(model, fraction):
                    self._out.append(Loading(model, round(fraction, 3)))
                case Evicted(held):
                    self._drop(held, "evicted")
                case Arrived():
                    self._arrived(outcome)
                case Refused(model, error, waiting):
                    log_event("model_load_failed", cause=str(error), model=model, code=error.code)
                    self._awaited -= {op.id for op in waiting}
                    self._out.extend(error.failed(op.id) for op in waiting)

    def _arrived(self, arrived: Arrived) -> None:
        name, load_s = arrived.entry.name, arrived.load_s
        held = self._models.admit(arrived.entry, arrived.weights, self._clock())
        log_event("model_loaded", model=name, bytes=held.bytes, load_s=round(load_s, 3))
        if not any(isinstance(op, Load) for op in arrived.waiting):
            self._out.append(Loaded(name, held.bytes, load_s))
        for op in arrived.waiting:
            self._start(held, op, load_s)

    def _expire(self) -> None:
        for held in self._models.expired(self._clock()):
            if held.entry.name == self._starts.backlog.awaits:
                continue
            self._drop(held, "unloaded" if held.unload_ids else "expired")

    def _drop(self, held: Held, cause: str) -> None:
        name = held.entry.name
        ids: list[str | None] = [*held.unload_ids] or [None]
        self._models.drop(held)
        self._freed = True
        log_event("model_unloaded", cause=cause, model=name)
        self._out.extend(Unloaded(name, id) for id in ids)

    def _say_ready(self) -> None:
        if self._ready or self._awaited:
            return
        self._ready = True
        loaded = tuple(held.entry.name for held in self._models.all())
        start_s = self._clock() - self._started_s
        log_event("engine_ready", loaded=loaded, start_s=round(start_s, 3))
        self._out.append(Ready(loaded, start_s))

    # --- the stages of a shutdown ---

    def refuse_new(self) -> None:
        """From here on new requests are refused; what waits for a model or for memory is refused too."""
        for op in [*self._loads.abandon(), *self._starts.backlog.clear()]:
            self._take(op)
        self._publish()

    def drain(self, seconds: float) -> int:
        """Go on with what is in flight for so long; how many are left."""
        self._draining_until = self._clock() + seconds
        while self._working() and self._clock() < self._draining_until:
            self._take_all()
            self._step()
        self._publish()
        return sum(len(held.runner) for held in self._models.all())

    def persist_caches(self) -> int:
        """What was computed for those in flight goes to the cache, and that to the disk; blocks written."""
        for held in self._models.all():
            held.runner.keep_all()
        return self._store.persist(PERSIST_S)

    def close_batches(self) -> None:
        """End what is left, telling the gateway that it may send it again elsewhere."""
        message = "The engine stopped before the request was done; the request can be sent again."
        for held in self._models.all():
            for request in held.runner.requests():
                self._out.append(Failed(request, "engine_unavailable", message, retryable=True))
            held.runner.close()
        self._publish()

    def unload_all(self) -> None:
        """Drop every model."""
        for held in self._models.all():
            self._models.drop(held)
        release_memory()
