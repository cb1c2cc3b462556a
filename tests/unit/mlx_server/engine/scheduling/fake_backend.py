"""A whole scheduler without MLX: fake models on a fake machine, and a clock that the test moves."""

from __future__ import annotations

import queue
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from mlx_server.engine.errors import EngineError, InsufficientMemory, LoadError, RequestError
from mlx_server.engine.generation.batch import BatchLimits
from mlx_server.engine.memory.guard import Tenant
from mlx_server.engine.memory.ledger import Fits
from mlx_server.engine.memory.refusals import MustWait
from mlx_server.engine.models.weights.verification import Verification
from mlx_server.engine.prompt_cache.store import BlockStore
from mlx_server.engine.scheduling.backend import Backend
from mlx_server.engine.scheduling.request import BackgroundJobs, PreparedPrompt, Request, RequestStatus
from mlx_server.engine.scheduling.request_table import EngineRequests
from mlx_server.engine.scheduling.runners.runner import Runner
from mlx_server.engine.scheduling.scheduler import Scheduler
from mlx_server.engine.settings import CacheSettings, EngineSettings
from mlx_server.engine.status import Status
from mlx_server.model_store import BrokenModel, ModelEntry
from mlx_server.protocol import (
    Done,
    Embed,
    Embedding,
    Event,
    Failed,
    Generate,
    Loaded,
    MemoryUse,
    Op,
    Usage,
)

CHAT, OTHER_CHAT, EMBED = "chat:latest", "other:latest", "embed:latest"
MODELS = (CHAT, OTHER_CHAT, EMBED)
SLOW = "a text that takes long to tokenize"


def entry(name: str) -> ModelEntry:
    kind: Any = "embed" if name == EMBED else "generate"
    return ModelEntry(name, Path(name), kind, 1, 1, 0.0, "mlx", "llama", "", "", 10, digest=name)


class FakeGuard:
    """`places` bounds the generations that run at once; no model can be loaded while `can_load` is False.

    With `evicts_idle_models`, room for a generation is made by unloading every idle model but its own.
    """

    def __init__(self) -> None:
        self.places, self.can_load, self.held_by_requests = 2, True, True
        self.evicts_idle_models = False
        self.tenants: Callable[[], Sequence[Tenant]] = tuple
        self.relieve: Callable[[Fits], None] = lambda fits: None
        self.loading = 0
        self.admitted = set[str]()

    def before_load(self, entry: ModelEntry, leaving: Sequence[str] = ()) -> Fits:
        if not self.can_load:
            raise self._must_wait()
        self.loading += 1
        return Fits()

    def load_ended(self) -> None:
        self.loading = 0

    def admit(self, op: Generate) -> None:
        if sum(len(self.admitted.intersection(tenant.requests)) for tenant in self.tenants()) >= self.places:
            raise self._must_wait()
        if self.evicts_idle_models:
            idle = [t for t in self.tenants() if not (t.requests or t.awaited or t.entry.name == op.model)]
            self.relieve(Fits(evict=tuple(tenant.entry.name for tenant in idle)))
        self.admitted.add(op.id)

    def use(self, kv_bytes: int, prompt_cache_bytes: int) -> MemoryUse:
        return MemoryUse()

    def _must_wait(self) -> MustWait:
        return MustWait(InsufficientMemory("no room", retryable=True), held_by_requests=self.held_by_requests)


class FakeRunner(Runner):
    """Answers a generation after `max_tokens` steps.

    A JSON schema needs a job that the test ends, and so do the tokens of a SLOW text.
    """

    def __init__(self, engine: FakeEngine, model: str, requests: EngineRequests) -> None:
        super().__init__(model, requests)
        self._engine, self._steps, self.closed = engine, dict[str, int](), False
        self.can_pause = model == EMBED

    def tokenize(self, request: Request, now: float) -> None:
        op = request.op
        assert not self.closed, "a request reached a model that had been unloaded"
        if isinstance(op, Generate) != (self._model != EMBED):
            raise RequestError("invalid_request", f"{self._model} is of another kind.")
        assert isinstance(op, (Generate, Embed))
        request.tokenization = self._engine.tokenization_of(op)
        self._requests.move(request, RequestStatus.TOKENIZING)

    def take_tokens(self, request: Request) -> Sequence[Event]:
        assert not self.closed, "tokens were taken from a model that had been unloaded"
        prompt = request.tokenization.result()
        if isinstance(request.op, Embed):
            self.join(request)
        elif isinstance(request.op, Generate) and request.op.count_only:
            self._requests.finish(request)
            return (Done(request.id, "stop", Usage(1, 0)),)
        else:
            request.prompt = prompt
            self._requests.move(request, RequestStatus.WAITING_FOR_MEMORY)
        return ()

    def start(self, request: Request, now: float) -> None:
        op = request.op
        assert isinstance(op, Generate)
        assert not self.closed and request.prompt is self._engine.prompts[op.id], "its prompt is an old one"
        assert self._requests.first(RequestStatus.WAITING_FOR_MEMORY) is request, "it passed another"
        self._engine.guard.admit(op)
        request.jobs = self._engine.jobs_of(op)
        self._requests.move(request, RequestStatus.PREPARING)
        if not request.jobs.futures:
            self.join(request)

    def join(self, request: Request) -> None:
        if request.status is RequestStatus.PREPARING and request.jobs.grammar:
            request.jobs.grammar.result()
        self._steps[request.id] = 0
        self._requests.move(request, RequestStatus.RUNNING)
        self._engine.started.append(request.id)

    def step(self, clock: Callable[[], float], share_s: float | None = None) -> Iterator[Event]:
        self._engine.shares_s.append((self._model, share_s))
        for request in self._requests.select(RequestStatus.RUNNING, model=self._model):
            op = request.op
            self._steps[op.id] += 1
            if isinstance(op, Generate) and self._steps[op.id] < (op.max_tokens or 1):
                continue
            self._requests.finish(request)
            if isinstance(op, Generate):
                yield Done(op.id, "length", Usage(1, self._steps[op.id]))
            else:
                yield Embedding(op.id, "", 1, 1)

    def close(self) -> None:
        super().close()
        self.closed = True


class FakeVerification(Verification):
    """Finds those models damaged that the test names, and records which models have answered."""

    def __init__(self) -> None:
        super().__init__()
        self.damaged, self.have_answered = list[tuple[str, str]](), list[str]()

    def served(self, model: str) -> None:
        self.have_answered.append(model)

    def take_damaged(self) -> list[tuple[str, str]]:
        found, self.damaged = self.damaged, []
        return found


class FakeEngine:
    """A scheduler over fakes. `events` holds all that it sent, `started` the ids in the order they ran."""

    def __init__(
        self, *, preload: Sequence[str] = (), max_loaded_models: int = 2, drain_s: float = 30.0
    ) -> None:
        self.now, self.guard = 1000.0, FakeGuard()
        self.events, self.started = list[Event](), list[str]()
        self._answers: dict[str, list[Event]] = {}
        self.jobs: dict[str, Future] = {}  # of grammars, still to be compiled
        self.tokenizations: dict[str, Future] = {}  # of SLOW texts
        self.prompts: dict[str, PreparedPrompt] = {}  # the latest of each request
        self.shares_s: list[tuple[str, float | None]] = []  # what each step of a model was told
        self.preloads = 0  # how often cached prompts could be read in advance
        self.cached_bytes = 0  # free memory that MLX holds for reuse
        self.loaders_broken = self.runners_broken = False
        self.requests: EngineRequests | None = None
        self.inbox: queue.SimpleQueue[Op | None] = queue.SimpleQueue()
        guard: Any = self.guard
        self.verification, self.engine_status = FakeVerification(), Status()
        self.scheduler = Scheduler(
            EngineSettings(
                preload=tuple(preload),
                max_loaded_models=max_loaded_models,
                keep_alive_s=60.0,
                drain_s=drain_s,
                persist_s=1.0,
                batch=BatchLimits(8, 128),
                cache=CacheSettings(Path("never opened"), 0, 0),
            ),
            self._catalog,
            self.inbox,
            self._receive,
            self.engine_status,
            lambda: self.now,
            Backend(
                BlockStore(None, 0, 0),
                guard,
                self._load,
                self._make_runner,
                lambda: setattr(self, "cached_bytes", 0),
                lambda: 0,
                lambda: self.cached_bytes,
                verification=self.verification,
                preload_prompts=self._preload_prompts,
            ),
        )

    def _preload_prompts(self, requests_run: bool) -> None:
        self.preloads += 1

    def _catalog(self) -> tuple[list[ModelEntry], list[BrokenModel]]:
        return [entry(name) for name in MODELS], [BrokenModel("broken:latest", "cut off")]

    def _load(self, of: ModelEntry) -> Generator[float, None, Any]:
        yield 0.5
        self.now += 0.1  # longer than a turn
        yield 0.9
        if self.loaders_broken:
            raise LoadError(of.name, "cut off")
        return SimpleNamespace(model=SimpleNamespace(parameters=dict))

    def _make_runner(self, entry: ModelEntry, weights: Any, requests: EngineRequests) -> FakeRunner:
        self.requests = requests
        if self.runners_broken:
            raise ValueError("a model of an unknown kind")
        return FakeRunner(self, entry.name, requests)

    def jobs_of(self, op: Generate) -> BackgroundJobs:
        if op.json_schema is None:
            return BackgroundJobs()
        self.jobs[op.id] = Future()
        return BackgroundJobs(grammar=self.jobs[op.id])

    def end_job(self, id: str, error: EngineError | None = None) -> None:
        """End the compilation of a request's grammar."""
        _end(self.jobs.pop(id), None, error)

    def tokenization_of(self, op: Generate | Embed) -> Future:
        self.tokenizations[op.id] = job = Future[Any]()
        if SLOW not in ((op.prompt,) if isinstance(op, Generate) else op.texts):
            self.end_tokenization(op.id)
        return job

    def end_tokenization(self, id: str, error: EngineError | None = None) -> None:
        prompt: Any = SimpleNamespace()
        self.prompts[id] = prompt
        _end(self.tokenizations.pop(id), prompt, error)

    def _receive(self, events: list[Event]) -> None:
        self.events += events
        for event in events:
            if isinstance(event, (Done, Failed, Loaded, Embedding)) and event.id:
                self._answers.setdefault(event.id, []).append(event)

    def send(self, *ops: Op) -> None:
        for op in ops:
            self.inbox.put(op)

    def turn(self, times: int = 1) -> None:
        for _ in range(times):
            self.inbox.put(None)  # never wait for an operation
            self.scheduler.turn()

    def answers(self, id: str) -> list[Event]:
        """The events that end request `id`."""
        return self._answers.get(id, [])

    def answer(self, id: str) -> Any:
        (answer,) = self.answers(id)
        return answer

    def status(self, id: str) -> RequestStatus:
        request = self.requests.get(id) if self.requests else None
        return request.status if request else RequestStatus.FINISHED


def _end(job: Future, result: Any, error: EngineError | None) -> None:
    if job.cancelled():
        return
    if error is None:
        job.set_result(result)
    else:
        job.set_exception(error)


def generate(id: str, model: str = CHAT, steps: int = 1, *, slow: bool = False, **more: Any) -> Generate:
    return Generate(id, model, "text", prompt=SLOW if slow else "p", max_tokens=steps, **more)


def embed(id: str, model: str = EMBED, *, slow: bool = False) -> Embed:
    return Embed(id, model, (SLOW if slow else "text",))
