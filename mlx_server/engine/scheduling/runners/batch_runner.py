"""Run the requests of a loaded embedding model or reranker, one batch of texts at a time. A batch is paused
after one of the model's layers if other requests wait for it.
"""

from __future__ import annotations

import contextlib
import time
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, InvalidStateError
from functools import partial
from typing import Literal

from mlx_server.engine.background_workers import BackgroundWorker
from mlx_server.engine.blas_threads.threads_for_products import ThreadsForProducts
from mlx_server.engine.embeddings.batches import BESIDE_ANSWERS_TOKENS, MAX_BATCH_TOKENS
from mlx_server.engine.embeddings.embedding_job import EmbeddingJob
from mlx_server.engine.embeddings.encoder import Encoder
from mlx_server.engine.errors import EngineError, wrong_kind
from mlx_server.engine.pausable_call import PausableCall
from mlx_server.engine.request_fence import confined
from mlx_server.engine.reranking.rerank_job import RerankJob
from mlx_server.engine.reranking.reranker import Reranker
from mlx_server.engine.scheduling.request import BatchJob, PreparedPrompt, Request, RequestStatus
from mlx_server.engine.scheduling.request_table import EngineRequests
from mlx_server.engine.scheduling.runners.runner import Runner
from mlx_server.protocol import Done, Embed, Event, Generate, Rerank

PART_S = 0.05
"""How many seconds of a batch are computed in a step while no language model has work. Then other embedding
models and rerankers make their steps, and the scheduler takes new requests."""


class BatchRunner(Runner):
    """Runs the requests of an embedding model or reranker. Each step computes one batch of one request's
    texts, or a part of it. `worker` is the background thread that tokenizes the texts; `close` closes it.
    """

    kind: Literal["embed", "rerank"]
    can_pause = True

    def __init__(self, model: str, requests: EngineRequests, worker: BackgroundWorker) -> None:
        super().__init__(model, requests)
        self._worker = worker
        self._threads = ThreadsForProducts()
        self._batch: PausableCall[bool] | None = None  # of the first running request; computed in part

    @abstractmethod
    def _job(self, request: Request, now: float) -> BatchJob:
        """Return the `BatchJob` that tokenizes the texts of a request, then computes their vectors or scores.
        `now` is the time at which the job begins, in seconds on the scheduler's clock; the answer reports how
        long the job took. Raises RequestError if the request is invalid, or needs another kind of model than
        this runner's.
        """

    def check(self, op: Generate) -> Future[PreparedPrompt]:
        raise wrong_kind(op, self.kind)

    def tokenize(self, request: Request, now: float) -> None:
        job = self._job(request, now)
        request.tokenization = Future()
        self._requests.move(request, RequestStatus.TOKENIZING)
        self._worker.submit(partial(self._tokenize_slice, job, request.tokenization))

    def _tokenize_slice(self, job: BatchJob, result: Future[BatchJob]) -> None:
        """Tokenize a slice of the texts of `job` on the worker's thread, and queue the next slice behind the
        jobs of other requests. After the last slice, complete the future `result` with `job`. If a slice
        fails, set its EngineError as the exception of `result`, and stop. Also stop if `result` was
        cancelled.

        Tokenizing many megabytes takes minutes. Each slice wakes the MLX thread, so that the engine does not
        count as hanging.
        """
        if result.cancelled():
            return
        try:
            with confined(job.id, "tokenizing its texts"):
                is_last = job.tokenize_slice()
        except EngineError as error:
            with contextlib.suppress(InvalidStateError):  # cancelled meanwhile
                result.set_exception(error)
            return
        if is_last:
            with contextlib.suppress(InvalidStateError):
                result.set_result(job)
        else:
            self._worker.submit(partial(self._tokenize_slice, job, result))

    def take_tokens(self, request: Request) -> Sequence[Event]:
        request.batch_job = request.take_tokenized()
        self._requests.move(request, RequestStatus.RUNNING)
        return ()

    def step(self, clock: Callable[[], float], share_s: float | None = None) -> Iterator[Event]:
        """Compute batches of texts, one of each request in turn, until the time for them is over; then pause
        the last one. If all texts of a request are computed before, yield its answer and return, so that it
        is sent at once.
        """
        until_s = time.monotonic() + (PART_S if share_s is None else share_s)
        max_tokens = MAX_BATCH_TOKENS if share_s is None else BESIDE_ANSWERS_TOKENS
        while request := self._requests.first(RequestStatus.RUNNING, model=self._model):
            is_last = self._compute_batch(request, max_tokens, until_s)
            if is_last is None:
                return
            if is_last:
                yield self._answer(request, clock())
                return
            self._requests.move_to_back(request)
            if time.monotonic() >= until_s:
                return

    def _compute_batch(self, request: Request, max_tokens: int, until_s: float) -> bool | None:
        """Compute a batch of the request's texts, or the rest of the paused one. Return True if these were
        the request's last texts, and False if others are left. Return None if the batch is paused, because it
        has not ended before `until_s` (monotonic seconds).
        """
        batch = self._batch or PausableCall(partial(request.batch_job.compute_batch, max_tokens))
        self._threads.begin()
        try:
            has_ended = batch.go_on(until_s)
        finally:
            self._threads.end(0)
        self._batch = None if has_ended else batch
        return batch.result if has_ended else None

    def _answer(self, request: Request, now: float) -> Event:
        self._requests.finish(request)
        try:
            with confined(request.id, "packing its results"):
                return request.batch_job.answer(now)
        except EngineError as error:
            return error.failed(request.id)

    def cancel(self, request: Request, now: float) -> Done:
        if request is self._requests.first(RequestStatus.RUNNING, model=self._model):
            self._drop_batch()
        return super().cancel(request, now)

    def _drop_batch(self) -> None:
        """End the batch that is computed in part, if there is one."""
        if self._batch is not None:
            self._batch.close()
            self._batch = None

    def close(self) -> None:
        self._drop_batch()
        super().close()
        self._worker.close()


class EmbeddingRunner(BatchRunner):
    """Runs `Embed` requests: computes vectors of texts with an encoder."""

    kind = "embed"

    def __init__(
        self, model: str, requests: EngineRequests, encoder: Encoder, worker: BackgroundWorker
    ) -> None:
        super().__init__(model, requests, worker)
        self._encoder = encoder

    def _job(self, request: Request, now: float) -> BatchJob:
        if not isinstance(request.op, Embed):
            raise wrong_kind(request.op, self.kind)
        return EmbeddingJob(request.op, self._encoder, now, request.load_s)


class RerankRunner(BatchRunner):
    """Runs `Rerank` requests: scores documents with a reranker."""

    kind = "rerank"

    def __init__(
        self, model: str, requests: EngineRequests, reranker: Reranker, worker: BackgroundWorker
    ) -> None:
        super().__init__(model, requests, worker)
        self._reranker = reranker

    def _job(self, request: Request, now: float) -> BatchJob:
        if not isinstance(request.op, Rerank):
            raise wrong_kind(request.op, self.kind)
        return RerankJob(request.op, self._reranker, now, request.load_s)
