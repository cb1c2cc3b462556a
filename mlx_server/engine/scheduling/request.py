"""One request in the engine: its operation, its status, and the data prepared for it. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any, Protocol

from msgspec.structs import replace

from mlx_server.engine.generation.generation import Generation
from mlx_server.engine.prompt_cache.prefix_match import PrefixMatch, RestoredPrefix
from mlx_server.engine.vision.pictures import PlacedPicture
from mlx_server.protocol import Done, Embed, Embedding, Generate, Load, Rerank, Reranked
from vestal.config import canonical

if TYPE_CHECKING:  # these import MLX
    from mlx_server.engine.generation.prompt_scoring import PromptScorer
    from mlx_server.engine.grammar.constraint import Gate
    from mlx_server.engine.grammar.grammars import GrammarProcessor
    from mlx_server.engine.prompt_cache.model_cache import StoredBlocks
    from mlx_server.engine.vision.image_prefill import ImagePrefill


class RequestStatus(Enum):
    """The status of a request: what it waits for, whether it runs, or that it has finished."""

    WAITING_FOR_MODEL = "waiting_for_model"
    """The request's model is not in memory, or only with files that were replaced since.
    Every request begins with this status; most leave it at once.
    """

    TOKENIZING = "tokenizing"
    """The model is loaded, and a background thread tokenizes the request's messages or texts."""

    WAITING_FOR_MEMORY = "waiting_for_memory"
    """The prompt is tokenized. Memory has no room for its keys and values, or earlier requests come first."""

    PREPARING = "preparing"
    """Memory is reserved, and background workers compile the grammar or read the prompt cache from disk."""

    RUNNING = "running"
    """The request is in its model's batch, or in the queue of an embedding model or a reranker."""

    FINISHED = "finished"
    """The request was answered, failed or cancelled, and has left the request table."""


TRANSITIONS: Mapping[RequestStatus, frozenset[RequestStatus]] = {
    RequestStatus.WAITING_FOR_MODEL: frozenset({RequestStatus.TOKENIZING, RequestStatus.FINISHED}),
    RequestStatus.TOKENIZING: frozenset(
        {RequestStatus.WAITING_FOR_MEMORY, RequestStatus.RUNNING, RequestStatus.FINISHED}
    ),
    RequestStatus.WAITING_FOR_MEMORY: frozenset(
        # A request returns to the first status if its model was unloaded meanwhile.
        {RequestStatus.WAITING_FOR_MODEL, RequestStatus.PREPARING, RequestStatus.FINISHED}
    ),
    RequestStatus.PREPARING: frozenset({RequestStatus.RUNNING, RequestStatus.FINISHED}),
    RequestStatus.RUNNING: frozenset({RequestStatus.FINISHED}),
    RequestStatus.FINISHED: frozenset(),
}
"""The statuses that may follow each status. An `Embed` or `Rerank` never waits for memory."""


WAITING = (RequestStatus.WAITING_FOR_MODEL, RequestStatus.WAITING_FOR_MEMORY)
IN_RUNNER = (RequestStatus.RUNNING, RequestStatus.PREPARING, RequestStatus.TOKENIZING)
"""The statuses of requests that their model's runner works on."""


@dataclass(frozen=True)
class MemoryWait:
    """When memory first had no room for a request, and when the request is tried again, in seconds on the
    scheduler's clock.
    """

    since_s: float
    retry_at_s: float


@dataclass(frozen=True)
class BackgroundJobs:
    """The jobs that must be done for one request before it can run. A job that the request does not need is
    None.

    Background workers compile the answer's grammar (`grammar`) and restore the cached beginning of the prompt
    (`prefix`). The MLX thread computes the log-probabilities of the prompt's tokens (`scorer`), or processes
    the prompt up to its last image (`images`). `prefix_match` is not a job: it lists the blocks and snapshots
    in the prompt cache that `prefix` restores.
    """

    grammar: Future[GrammarProcessor | None] | None = None
    """Compiles the grammar of the request's JSON schema, or only reads the vocabulary."""
    prefix: Future[RestoredPrefix] | None = None
    """Restores `prefix_match`, the cached beginning of the prompt, from the prompt cache."""
    prefix_match: PrefixMatch | None = None
    scorer: PromptScorer | None = None
    """Scores the prompt's tokens on the MLX thread, between the steps of other requests."""
    images: ImagePrefill | None = None
    """Computes the prompt up to its last image, on the MLX thread, between the steps of other requests."""
    ready: tuple[Sequence[Any], int] = ((), 0)
    """Not a job: caches of an ended request, which hold the beginning of the prompt, and the number of its
    tokens in them."""

    @property
    def of_workers(self) -> list[Future[Any]]:
        """Return the jobs that background workers do, without the jobs of the MLX thread."""
        return [future for future in (self.grammar, self.prefix) if future is not None]

    @property
    def futures(self) -> list[Future[Any]]:
        scoring = self.scorer.done if self.scorer else None
        reading = self.images.done if self.images else None
        return [*self.of_workers, *(future for future in (scoring, reading) if future is not None)]

    @property
    def can_score(self) -> bool:
        """Return True if `scorer` can compute log-probabilities at this time: it has not done so for all
        tokens of the prompt, and the vocabulary, which it needs, has been read.
        """
        is_pending = self.scorer is not None and not self.scorer.done.done()
        return is_pending and (self.grammar is None or self.grammar.done())

    @property
    def can_read_images(self) -> bool:
        """Return True if `images` can do its next step at this time: it has not finished, the cached
        beginning of the prompt has been restored, and the inputs for the vision tower are ready.
        """
        if self.images is None or self.images.done.done():
            return False
        return self.images.is_ready and (self.prefix is None or self.prefix.done())

    @property
    def done(self) -> bool:
        """Return True if every job has ended, with a result or an exception."""
        return all(future.done() for future in self.futures)

    @property
    def while_running(self) -> BackgroundJobs:
        """Return only those jobs whose results a running answer needs: the grammar. The results of the others
        are in the batch, and would take memory a second time.
        """
        return BackgroundJobs(grammar=self.grammar)

    def cancel(self) -> None:
        """Cancel the jobs that have not begun. The result of a job that has begun is discarded."""
        for future in self.futures:
            future.cancel()


@dataclass(frozen=True)
class PreparedPrompt:
    """What a background thread prepares for a `Generate` operation before the request waits for memory.

    It refers to the model's tokenizer but not to the model, which may be unloaded while the request waits.
    `generation` holds the prompt's tokens and the state of the answer. `gate` opens at the end of the model's
    thinking, where the grammar begins to apply; if `gate` is None, the grammar applies from the first token
    of the answer. `answer` is the whole answer if the request need not run, because it only counts tokens, or
    because an earlier engine has already sent the whole answer. `pictures` are the prompt's images.
    """

    generation: Generation
    gate: Gate | None = None
    answer: Done | None = None
    pictures: tuple[PlacedPicture, ...] = ()


class BatchJob(Protocol):
    """The texts of one `Embed` or `Rerank` operation, which are first tokenized in slices, then computed in
    batches.
    """

    id: str

    def tokenize_slice(self) -> bool:
        """Tokenize the next slice of the texts. Return True if all texts are tokenized.

        Raises RequestError if a text cannot be tokenized or is too long.
        """
        ...

    def compute_batch(self, max_tokens: int) -> bool:
        """Compute the next batch of texts, which has at most `max_tokens` tokens unless it is a single text.
        Return True if all texts are computed.
        """
        ...

    def answer(self, now: float) -> Embedding | Reranked:
        """Return the event that answers the request. Call this only after `compute_batch` has returned True.
        `now` is the current time: the event reports how long the job has taken until then. Raises EngineError
        if a computed number is infinite or NaN.
        """
        ...


@dataclass(eq=False)
class Request:
    """A `Generate`, `Embed`, `Rerank` or `Load` operation and its state. `op.model` is the model's name with
    its tag, as `vestal.config.canonical` returns it. Only `EngineRequests` may change `status`.

    `memory_wait` is set when memory has no room for the request. It remains if the request's model is
    unloaded and loaded again, so that the wait ends in time. The attributes from `tokenization` on do not
    exist at first: the model's runner sets them when the request reaches the statuses that the comments name.
    """

    op: Generate | Embed | Rerank | Load
    status: RequestStatus = RequestStatus.WAITING_FOR_MODEL
    load_s: float = 0.0
    """How many seconds the load took that this request waited for."""
    memory_wait: MemoryWait | None = None
    prompt: PreparedPrompt | None = None
    """Set for a `Generate` that waits for memory. None if it must be prepared again, because the model was
    unloaded."""
    pictures: tuple[PlacedPicture, ...] = ()
    """The images of a `Generate`, from PREPARING on."""

    # While TOKENIZING: the job whose result is the `PreparedPrompt` or the `BatchJob`.
    tokenization: Future[Any] = field(init=False, repr=False)
    # Of a `Generate`, from PREPARING on.
    generation: Generation = field(init=False, repr=False)
    jobs: BackgroundJobs = field(init=False, repr=False)
    stored_blocks: StoredBlocks = field(init=False, repr=False)  # its blocks in the prompt cache
    # Of a `Generate`, from RUNNING on: its handle in the batch.
    batch_uid: int = field(init=False, repr=False)
    # Of an `Embed` or a `Rerank`, from RUNNING on.
    batch_job: BatchJob = field(init=False, repr=False)

    @property
    def id(self) -> str:
        return self.op.id

    @property
    def model(self) -> str:
        return self.op.model

    def wait_for(self, model: str) -> None:
        """Let the request wait for `model` from now on: the model that the client asked for is loaded under
        this name.
        """
        self.op = replace(self.op, model=canonical(model))

    def take_tokenized(self) -> Any:
        """Return the result of `tokenization`, and delete that attribute, since the job would keep the pixels
        of images in memory while the answer runs. Raises the exception with which the job failed.
        """
        job = self.tokenization
        del self.tokenization
        return job.result()

    @property
    def grammar(self) -> GrammarProcessor | None:
        """Return the logits processor that applies the grammar to the answer; None if the answer has no
        grammar. Read this only when all `jobs` are done, because it waits for the job that compiles the
        grammar, and raises the exception with which the job failed.
        """
        return self.jobs.grammar.result() if self.jobs.grammar else None

    @property
    def resumes(self) -> bool:
        """Return True if an earlier engine ran the request and died, perhaps before the answer's first
        token.
        """
        return self.op.resumed or (isinstance(self.op, Generate) and bool(self.op.emitted))
