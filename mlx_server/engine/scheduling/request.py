"""One request on its way through the engine: its operation, its status and what was made for it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any, Protocol

from mlx_server.engine.generation.generation import Generation
from mlx_server.engine.prompt_cache.prefix_match import PrefixMatch, RestoredPrefix
from mlx_server.engine.vision.pictures import PlacedPicture
from mlx_server.protocol import Done, Embed, Embedding, Generate, Load, Rerank, Reranked

if TYPE_CHECKING:  # these import MLX
    from mlx_server.engine.generation.prompt_scoring import PromptScorer
    from mlx_server.engine.grammar.constraint import Gate
    from mlx_server.engine.grammar.grammars import GrammarProcessor
    from mlx_server.engine.prompt_cache.model_cache import StoredBlocks
    from mlx_server.engine.vision.image_prefill import ImagePrefill


class RequestStatus(Enum):
    """The status of a request: what it waits for, or that it runs or has finished."""

    WAITING_FOR_MODEL = "waiting_for_model"
    """Its model is not in memory. Every request begins with this status, and most leave it at once."""

    TOKENIZING = "tokenizing"
    """Its model is loaded; a background thread makes the tokens of its messages or texts."""

    WAITING_FOR_MEMORY = "waiting_for_memory"
    """Its prompt is made. Memory has no room for its keys and values yet, or earlier requests come first."""

    PREPARING = "preparing"
    """Memory is reserved; background workers compile its grammar or read the prompt cache from disk."""

    RUNNING = "running"
    """It is in its model's batch, or in the queue of an embedding model or a reranker."""

    FINISHED = "finished"
    """It was answered, failed or cancelled, and has left the request table."""


TRANSITIONS: Mapping[RequestStatus, frozenset[RequestStatus]] = {
    RequestStatus.WAITING_FOR_MODEL: frozenset({RequestStatus.TOKENIZING, RequestStatus.FINISHED}),
    RequestStatus.TOKENIZING: frozenset(
        {RequestStatus.WAITING_FOR_MEMORY, RequestStatus.RUNNING, RequestStatus.FINISHED}
    ),
    RequestStatus.WAITING_FOR_MEMORY: frozenset(
        # Back to the first status if its model was unloaded meanwhile.
        {RequestStatus.WAITING_FOR_MODEL, RequestStatus.PREPARING, RequestStatus.FINISHED}
    ),
    RequestStatus.PREPARING: frozenset({RequestStatus.RUNNING, RequestStatus.FINISHED}),
    RequestStatus.RUNNING: frozenset({RequestStatus.FINISHED}),
    RequestStatus.FINISHED: frozenset(),
}
"""The statuses that may follow each status. Embeddings and scores need no memory of their own."""


WAITING = (RequestStatus.WAITING_FOR_MODEL, RequestStatus.WAITING_FOR_MEMORY)
IN_RUNNER = (RequestStatus.RUNNING, RequestStatus.PREPARING, RequestStatus.TOKENIZING)
"""The statuses of requests that their model's runner works on."""


@dataclass(frozen=True)
class MemoryWait:
    """When memory first had no room for a request, and when it is tried again, on the scheduler's clock."""

    since_s: float
    retry_at_s: float


@dataclass(frozen=True)
class BackgroundJobs:
    """The jobs of background workers that one request needs before it can run. A job that is not needed is
    None.
    """

    grammar: Future[GrammarProcessor | None] | None = None
    """Compiles the grammar of the request's JSON schema, or only reads the vocabulary."""
    prefix: Future[RestoredPrefix] | None = None
    """Restores `prefix_match` from the prompt cache."""
    prefix_match: PrefixMatch | None = None
    scorer: PromptScorer | None = None
    """Scores the prompt's tokens on the MLX thread, between the steps of the others."""
    images: ImagePrefill | None = None
    """Computes the prompt up to its last image, on the MLX thread, between the steps of the others."""

    @property
    def of_workers(self) -> list[Future[Any]]:
        """Return the jobs that background workers do without the MLX thread."""
        return [future for future in (self.grammar, self.prefix) if future is not None]

    @property
    def futures(self) -> list[Future[Any]]:
        scoring = self.scorer.done if self.scorer else None
        reading = self.images.done if self.images else None
        return [*self.of_workers, *(future for future in (scoring, reading) if future is not None)]

    @property
    def can_score(self) -> bool:
        """Return True if the vocabulary is read and the prompt has tokens that are not scored yet."""
        is_pending = self.scorer is not None and not self.scorer.done.done()
        return is_pending and (self.grammar is None or self.grammar.done())

    @property
    def can_read_images(self) -> bool:
        """Return True if a part of the images can be computed now: what the prompt cache has of the prompt is
        restored, and the tower's inputs are made.
        """
        if self.images is None or self.images.done.done():
            return False
        return self.images.is_ready and (self.prefix is None or self.prefix.done())

    @property
    def done(self) -> bool:
        """Return True if every job has ended, with a result or an exception."""
        return all(future.done() for future in self.futures)

    def cancel(self) -> None:
        """Cancel the jobs that have not begun. The result of one that has begun is discarded."""
        for future in self.futures:
            future.cancel()


@dataclass(frozen=True)
class PreparedPrompt:
    """What a background thread makes of a `Generate` before the request waits for memory.

    It refers to the model's tokenizer, and not to the model, which may be unloaded while the request waits.
    `gate` opens at the end of the model's thinking, from where a grammar applies; None: at once. `answer` is
    the whole answer if the request need not run: its tokens are only counted, or an earlier engine has
    already sent the whole answer. `pictures` are the prompt's images.
    """

    generation: Generation
    gate: Gate | None = None
    answer: Done | None = None
    pictures: tuple[PlacedPicture, ...] = ()


class BatchJob(Protocol):
    """The texts of one `Embed` or `Rerank`: first tokenized in slices, then computed in batches."""

    id: str

    def tokenize_slice(self) -> bool:
        """Tokenize the next slice of the texts, and return whether all texts are tokenized.

        Raises RequestError for a text that cannot be read or is too long.
        """
        ...

    def step(self) -> bool:
        """Compute the next batch of texts, and return whether all texts are computed."""
        ...

    def answer(self, now: float) -> Embedding | Reranked:
        """Return the event that answers the request, once the last step is done. Raises EngineError."""
        ...


@dataclass(eq=False)
class Request:
    """A `Generate`, `Embed`, `Rerank` or `Load`; `op.model` is canonical. Only `RequestTable` changes
    `status`.

    The attributes without a default are set by the model's runner, when the request reaches it.
    """

    op: Generate | Embed | Rerank | Load
    status: RequestStatus = RequestStatus.WAITING_FOR_MODEL
    load_s: float = 0.0
    """How long the load took that this request waited for, in seconds."""
    memory_wait: MemoryWait | None = None
    prompt: PreparedPrompt | None = None
    """Of a `Generate` that waits for memory. None if it must be made again: the model was unloaded."""
    pictures: tuple[PlacedPicture, ...] = ()
    """The images of a `Generate`, from PREPARING on."""

    # From TOKENIZING on: the job that makes the prompt, or the `BatchJob`.
    tokenization: Future[Any] = field(init=False, repr=False)
    # Of a `Generate`, from PREPARING on.
    generation: Generation = field(init=False, repr=False)
    jobs: BackgroundJobs = field(init=False, repr=False)
    stored_blocks: StoredBlocks = field(init=False, repr=False)  # what is in the prompt cache
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

    @property
    def grammar(self) -> GrammarProcessor | None:
        """Return the grammar that constrains a RUNNING generation, if one does."""
        return self.jobs.grammar.result() if self.jobs.grammar else None

    @property
    def resumes(self) -> bool:
        """Return True if this continues an answer that was cut off when an earlier engine died."""
        return isinstance(self.op, Generate) and bool(self.op.emitted)
