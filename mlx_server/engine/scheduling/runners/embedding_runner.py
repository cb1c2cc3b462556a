"""Runs the requests of one loaded embedding model, one batch of texts at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from mlx_server.engine.background_workers import BackgroundWorker
from mlx_server.engine.embeddings.embedding_job import EmbeddingJob
from mlx_server.engine.embeddings.encoder import Encoder
from mlx_server.engine.errors import EngineError, RequestError
from mlx_server.engine.request_fence import confined
from mlx_server.engine.scheduling.request import Request, RequestStatus
from mlx_server.engine.scheduling.request_table import RequestTable
from mlx_server.engine.scheduling.runners.runner import Runner
from mlx_server.protocol import Embed, Event


class EmbeddingRunner(Runner):
    """Encodes one batch of texts of one request each step. `worker` tokenizes them; `close` closes it."""

    def __init__(
        self, model: str, requests: RequestTable, encoder: Encoder, worker: BackgroundWorker
    ) -> None:
        super().__init__(model, requests)
        self._encoder, self._worker = encoder, worker

    def tokenize(self, request: Request, now: float) -> None:
        op, load_s = request.op, request.load_s
        if not isinstance(op, Embed):
            raise RequestError("not_a_chat_model", f"Model {op.model} embeds text; it cannot generate.")

        def make_job() -> EmbeddingJob:
            with confined(op.id, "tokenizing its texts"):
                return EmbeddingJob(op, self._encoder, now, load_s)

        request.tokenization = self._worker.submit(make_job)
        self._requests.move(request, RequestStatus.TOKENIZING)

    def take_tokens(self, request: Request) -> Sequence[Event]:
        request.embedding_job = request.tokenization.result()
        self._requests.move(request, RequestStatus.RUNNING)
        return ()

    def step(self, clock: Callable[[], float]) -> Iterator[Event]:
        """Encode one batch of the first request. If more is left of it, it goes behind the others."""
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
