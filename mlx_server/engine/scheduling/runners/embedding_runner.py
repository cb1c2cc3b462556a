"""Run the requests of one loaded embedding model, one batch of texts at a time."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, InvalidStateError
from functools import partial

from mlx_server.engine.background_workers import BackgroundWorker
from mlx_server.engine.embeddings.embedding_job import EmbeddingJob
from mlx_server.engine.embeddings.encoder import Encoder
from mlx_server.engine.errors import EngineError, RequestError
from mlx_server.engine.request_fence import confined
from mlx_server.engine.scheduling.request import Request, RequestStatus
from mlx_server.engine.scheduling.request_table import EngineRequests
from mlx_server.engine.scheduling.runners.runner import Runner
from mlx_server.protocol import Embed, Event


class EmbeddingRunner(Runner):
    """Encodes, in each step, one batch of texts of one request. `worker` tokenizes texts; `close` also closes
    it.
    """

    def __init__(
        self, model: str, requests: EngineRequests, encoder: Encoder, worker: BackgroundWorker
    ) -> None:
        super().__init__(model, requests)
        self._encoder, self._worker = encoder, worker

    def tokenize(self, request: Request, now: float) -> None:
        op = request.op
        if not isinstance(op, Embed):
            raise RequestError("not_a_chat_model", f"Model {op.model} embeds text; it cannot generate.")
        job = EmbeddingJob(op, self._encoder, now, request.load_s)
        request.tokenization = Future()
        self._requests.move(request, RequestStatus.TOKENIZING)
        self._worker.submit(partial(self._tokenize_slice, job, request.tokenization))

    def _tokenize_slice(self, job: EmbeddingJob, result: Future[EmbeddingJob]) -> None:
        """Tokenize some of a request's texts on the worker's thread; the next slice comes after the other
        requests.

        Each slice wakes the MLX thread, which counts as progress: many megabytes take minutes.
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
        request.embedding_job = request.tokenization.result()
        self._requests.move(request, RequestStatus.RUNNING)
        return ()

    def step(self, clock: Callable[[], float]) -> Iterator[Event]:
        """Encode one batch of the first request. If that request has more texts, it moves
        behind the others.
        """
        request = self._requests.first(RequestStatus.RUNNING, model=self._model)
        if request is None:
            return
        if not request.embedding_job.step():
            self._requests.move_to_back(request)
            return
        self._requests.finish(request)
        try:
            with confined(request.id, "packing its vectors"):
                answer: Event = request.embedding_job.answer(clock())
        except EngineError as error:
            answer = error.failed(request.id)
        yield answer

    def close(self) -> None:
        super().close()
        self._worker.close()
