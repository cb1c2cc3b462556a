"""The MLX thread's loop. Each turn advances the load in progress, and the requests of each loaded model, by
one step.

MLX's streams belong to one thread, so no other thread uses MLX. Operations arrive in a queue, and events are
passed to `emit`, all at once after each step. An exception from a step ends the process, because its state
cannot be trusted after a Metal error. The gateway then starts another engine and resumes the requests.
"""

from __future__ import annotations

import contextlib
import queue
import time
from collections.abc import Callable

from mlx_server.engine.background_workers import BackgroundWorkers
from mlx_server.engine.log import log_event
from mlx_server.engine.memory import readings
from mlx_server.engine.memory.wait_policy import RETRY_S, WaitPolicy
from mlx_server.engine.scheduling.backend import Backend, open_backend
from mlx_server.engine.scheduling.early_checks import EarlyChecks
from mlx_server.engine.scheduling.load_outcomes import LoadOutcomes
from mlx_server.engine.scheduling.loaded_models import LoadedModels
from mlx_server.engine.scheduling.loads import Catalog, LoadedAs, Loads
from mlx_server.engine.scheduling.memory_queue import MemoryQueue
from mlx_server.engine.scheduling.operations import Operations, shutting_down
from mlx_server.engine.scheduling.request import IN_RUNNER, WAITING, RequestStatus
from mlx_server.engine.scheduling.request_table import EngineRequests
from mlx_server.engine.scheduling.starter import Starter
from mlx_server.engine.scheduling.status_updates import StatusUpdates
from mlx_server.engine.scheduling.unloader import Unloader
from mlx_server.engine.settings import EngineSettings
from mlx_server.engine.status import Status
from mlx_server.model_store.catalog.changes import ModelChanges
from mlx_server.protocol import Event, Failed, Load, Op, Ready, Shutdown

Emit = Callable[[list[Event]], None]
Inbox = queue.SimpleQueue[Op | None]
"""Operations for the engine. None only wakes the thread, because a background worker has finished a job."""

BEFORE_RUNNING = (RequestStatus.WAITING_FOR_MODEL, RequestStatus.TOKENIZING, RequestStatus.PREPARING)
"""The statuses of requests that may still need the disk, for a model or the prompt cache, before they run."""

PRELOAD = "preload/"
"""The beginning of the ids of `Load` operations that the engine itself makes."""

IDLE_S = 5.0
"""After this idle time, the engine prepares things for which later requests would have to wait. That blocks
all threads for 0.3 s, so it is not done earlier: after a restart, the next turn of a conversation arrives
within a second or two.
"""

LONGEST_WAIT_S = 3600.0
"""The longest wait for an operation. Python refuses to wait for centuries, which a keep-alive may demand."""

NEW_TOKENS_S = 0.005
"""How long running answers wait for new requests to be tokenized. A short prompt is tokenized in 1 ms. If the
turn continued without it, the prompt would wait for the end of the next step, some 50 ms."""

MOST_SHARED_S = 1.0
"""For how many seconds at most batches of texts are computed between two steps of language models. Slices of
a long prompt may take longer, but the engine takes requests and cancellations only between steps."""

TOGETHER_S = 0.03
"""How long, while no answer runs, requests that are ready wait for others that are being prepared. Eight
prompts that arrive at once are then processed in one step instead of two or three, which would take half as
long again."""


class Scheduler:
    """Owns the requests and the models. It is the only interface of this package.

    `run` serves until a shutdown is requested, then returns. Its caller then calls the stages of the
    shutdown, in this order: `hand_back_waiting`, `drain`, `persist_caches`, `hand_back_running`,
    `unload_models`.
    """

    def __init__(
        self,
        settings: EngineSettings,
        catalog: Catalog,
        inbox: Inbox,
        emit: Emit,
        status: Status,
        clock: Callable[[], float] = time.monotonic,
        backend: Backend | None = None,
    ) -> None:
        self._settings, self._inbox, self._emit, self._clock = settings, inbox, emit, clock
        backend = backend or open_backend(settings, BackgroundWorkers(lambda: inbox.put(None)))
        self._prompt_cache, self._preload_prompts = backend.prompt_cache, backend.preload_prompts
        self._verification, self._release_memory = backend.verification, backend.release_memory
        self._started_s, self._ready = clock(), False
        self._drain_until_s: float | None = None
        self._events: list[Event] = []
        guard, send, policy = backend.guard, self._events.append, WaitPolicy(settings.max_wait_s)
        self._requests = EngineRequests()
        self._queue = MemoryQueue(self._requests, policy)
        self._models = LoadedModels(
            self._requests,
            self._queue,
            settings.max_loaded_models,
            settings.keep_alive_of,
            ModelChanges(catalog, settings.model_folders, clock).has_changed,
        )
        self._loads = Loads(self._requests, catalog, self._models, guard, policy, backend.load)
        self._starter = Starter(self._requests, self._queue, self._models, send, clock)
        loaded_as = LoadedAs(catalog, clock)
        self._operations = Operations(self._requests, self._models, self._starter, send, clock, loaded_as)
        self._unloader = Unloader(
            self._models, self._prompt_cache, backend.release_memory, send, backend.verification
        )
        self._load_outcomes = LoadOutcomes(
            self._loads,
            self._requests,
            self._models,
            self._starter,
            self._unloader,
            backend.make_runner,
            send,
            clock,
        )
        self._status = StatusUpdates(status, self._models, self._loads, backend)
        status.limit_bytes = readings.limit_bytes(settings.memory_limit_bytes)
        self.early_checks = EarlyChecks(
            catalog,
            self._models.for_new_request,
            loaded_as,
            guard,
            lambda event: emit([event]),
            max_image_pixels=settings.max_image_pixels,
        )
        guard.tenants = self._models.tenants
        guard.relieve = self._unloader.relieve

    # --- serving ---

    def run(self) -> float:
        """Begin to load the configured models, and serve until a shutdown is requested. Return how many
        seconds the caller may give `drain`, in which running requests can end.
        """
        self.preload()
        while self._drain_until_s is None:
            self.turn()
        return max(self._drain_until_s - self._clock(), 0.0)

    def preload(self) -> None:
        """Begin to load the models that the configuration names for the start."""
        for name in self._settings.preload:
            self._operations.carry_out(Load(PRELOAD + name, name))

    def turn(self) -> None:
        """Carry out the operations that have arrived, after waiting for one if there is nothing else to do.
        Advance the loading of a model, start waiting requests, advance all running requests by one step, and
        unload damaged or expired models. Send the events that this causes.
        """
        self._announce_ready()
        self._receive()
        self._load_outcomes.advance()
        self._start_requests()
        self._step()
        self._unloader.unload_damaged()
        self._unloader.unload_expired(self._clock())
        self._unloader.release_freed_memory()
        self._read_cached_prompts()
        self._publish()

    def _announce_ready(self) -> None:
        """Send `Ready` once, as soon as each preloaded model is in memory or could not be loaded."""
        if self._ready or any(request.id.startswith(PRELOAD) for request in self._requests.select(*WAITING)):
            return
        self._ready = True
        loaded = tuple(model.entry.name for model in self._models.all())
        start_s = self._clock() - self._started_s
        log_event("engine_ready", loaded=loaded, start_s=round(start_s, 3))
        self._events.append(Ready(loaded, start_s))

    def _start_requests(self) -> None:
        """Move the requests that background threads have tokenized to the queue for memory or to RUNNING, and
        start the generations in that queue for which memory has room.
        """
        if self._requests.any(RequestStatus.RUNNING):
            self._starter.wait_for_new_tokens(NEW_TOKENS_S)
            self._starter.start_tokenized()
        else:
            self._start_together()

    def _start_together(self) -> None:
        """Start requests while no answer runs. Wait a short time, at most TOGETHER_S, for requests that are
        being prepared and for those that arrive meanwhile, so that all run in the first step.
        """
        until_s = time.monotonic() + TOGETHER_S  # real time, since the background workers need real time
        while True:
            self._starter.start_tokenized()
            wait_s = until_s - time.monotonic()
            if wait_s <= 0 or not self._starter.wait_for_jobs(wait_s):
                return
            self._receive_arrived()

    def _step(self) -> None:
        """Make one step of each model that has work. Send the step's events before storing its keys and
        values in the prompt cache.
        """
        for model in self._models.all():
            runner = model.runner
            if not runner.can_step:
                continue
            for request in runner.prepared():
                self._starter.join(request, model)
            before, began_s = len(self._events), time.monotonic()
            self._events.extend(runner.step(self._clock, self._share_s()))
            model.last_step_s = time.monotonic() - began_s
            if len(self._events) > before:
                self._verification.served(model.entry.name)
            if not self._models.is_busy(model):
                self._models.mark_unused(model, self._clock())
            self._publish()
            runner.cache_pending_kv()

    def _share_s(self) -> float | None:
        """Return how many seconds each step that can be paused should take: together as long as the last
        steps of the models with work whose steps cannot be paused, so that these get at least half of the
        time, but at most MOST_SHARED_S. Return None if no such model has work.

        A step that can be paused takes the time that it is given. So its own duration must not count here:
        two models would then give each other more and more time.
        """
        models = [model for model in self._models.all() if model.runner.can_step]
        whole = [model.last_step_s for model in models if not model.runner.can_pause]
        if not whole:
            return None
        return min(sum(whole), MOST_SHARED_S) / max(len(models) - len(whole), 1)

    def _read_cached_prompts(self) -> None:
        """Continue to read cached prompts from disk into RAM, unless a model or a request needs the disk at
        this time.
        """
        if self._loads.loading is None and not self._requests.any(*BEFORE_RUNNING):
            self._preload_prompts(self._requests.any(RequestStatus.RUNNING))

    def _publish(self) -> None:
        """Update the engine's status, and pass the events collected since the last call to `emit`, all at
        once.
        """
        self._status.update(self._working, self._clock())
        if self._events:
            burst = self._events.copy()
            self._events.clear()
            self._emit(burst)

    @property
    def _working(self) -> bool:
        return len(self._requests) > 0 or self._loads.loading is not None

    # --- receiving operations ---

    def _receive(self) -> None:
        """Carry out all operations that have arrived. If there is nothing else to do, wait for the next
        operation.
        """
        with contextlib.suppress(queue.Empty):
            if not self._has_work_now() and not self._events:
                self._take(self._wait())
        self._receive_arrived()

    def _receive_arrived(self) -> None:
        """Carry out the operations that have arrived."""
        with contextlib.suppress(queue.Empty):
            while True:
                self._take(self._inbox.get_nowait())

    def _take(self, op: Op | None) -> None:
        if isinstance(op, Shutdown):
            seconds = self._settings.drain_s if op.drain_s is None else op.drain_s
            until_s = self._clock() + seconds
            # A second shutdown may shorten the drain, but not lengthen it.
            self._drain_until_s = min(until_s, self._drain_until_s or until_s)
            self._operations.stop_accepting()
        elif op is not None:
            self._operations.carry_out(op)

    def _has_work_now(self) -> bool:
        now = self._clock()
        can_step = any(model.runner.can_step for model in self._models.all())
        return not self._loads.blocked(now) or can_step or self._queue.due(now) is not None

    def _wait(self) -> Op | None:
        """Wait for the next operation, and return it. Return None if there is no operation, but a background
        job has ended and woken the thread. Raises queue.Empty if something else is due before an operation
        arrives.
        """
        if not self._working and self._wait_s() > IDLE_S:
            try:
                return self._inbox.get(timeout=IDLE_S)
            except queue.Empty:
                self._use_idle_moment()
        return self._inbox.get(timeout=self._wait_s())

    def _use_idle_moment(self) -> None:
        for model in self._models.all():
            model.runner.warm_up()
        self._prompt_cache.retry_unwritten()
        self._verification.served_all()
        self._release_memory()
        self._publish()

    def _wait_s(self) -> float:
        """Return how many seconds the scheduler may wait for an operation, at most LONGEST_WAIT_S. It must
        wake up when the next model expires; during a drain, no model expires, and it must wake up at the end
        of the drain instead. While a request waits for a model or memory, or a model is being loaded, it must
        check again after RETRY_S seconds whether the request or the load can go on.
        """
        now, until_s = self._clock(), self._drain_until_s
        if until_s is None:
            until_s = self._models.next_expiry_s()
        if self._requests.any(*WAITING) or self._loads.loading is not None:
            until_s = min(until_s, now + RETRY_S)
        return min(max(until_s - now, 0.0), LONGEST_WAIT_S)

    # --- the stages of a shutdown ---

    def hand_back_waiting(self) -> None:
        """Fail the requests that wait for a model or for memory, so that the gateway sends them to another
        engine.
        """
        self._loads.abandon()
        self._hand_back_waiting()
        self._publish()

    def _hand_back_waiting(self) -> None:
        for request in self._requests.select(*WAITING):
            self._requests.finish(request)
            self._events.append(shutting_down(request.id))

    def drain(self, seconds: float) -> int:
        """Continue the requests on which runners work, for at most `seconds`. Return how many requests are
        unfinished.
        """
        self._drain_until_s = self._clock() + seconds
        while self._working and self._clock() < self._drain_until_s:
            self._receive()
            self._start_requests()
            self._hand_back_waiting()  # generations for which memory has no room at once
            self._step()
            self._publish()
        return len(self._requests)

    def persist_caches(self, timeout_s: float) -> int:
        """Store the keys and values of unfinished requests in the prompt cache, and write the cache to disk.

        Return how many blocks were written. Blocks that are not written within `timeout_s` seconds are lost,
        and must be computed again.
        """
        until_s = self._clock() + timeout_s
        for model in self._models.all():
            model.runner.cache_all_kv()
        return self._prompt_cache.persist(max(until_s - self._clock(), 0.0))

    def hand_back_running(self) -> None:
        """Fail the requests that the drain has not finished, so that the gateway sends them to another
        engine.
        """
        message = "The engine stopped before the request was done; the request can be sent again."
        for model in self._models.all():
            for request in self._requests.select(*IN_RUNNER, model=model.entry.name):
                self._events.append(Failed(request.id, "engine_unavailable", message, retryable=True))
            model.runner.close()
        self._publish()

    def unload_models(self) -> None:
        """Unload all models and free their memory. This is the last stage of a shutdown: the earlier stages
        have ended all requests and the load in progress.
        """
        self._unloader.unload_all()
