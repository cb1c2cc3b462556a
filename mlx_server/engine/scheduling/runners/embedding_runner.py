"""Runs the requests of one loaded embedding model, one batch of texts at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from mlx_server.engine.embeddings.embedding_job import EmbeddingJob
from mlx_server.engine.embeddings.encoder import Encoder
from mlx_server.engine.errors import RequestError
from mlx_server.engine.scheduling.request import Request, RequestStatus
from mlx_server.engine.scheduling.request_table import RequestTable
from mlx_server.engine.scheduling.runners.runner import Runner
from mlx_server.protocol import Done, Embed, Event, Usage


class EmbeddingRunner(Runner):
    """Encodes one batch of texts of one request each step."""

    def __init__(self, model: str, requests: RequestTable, encoder: Encoder) -> None:
        super().__init__(model, requests)
        self._encoder = encoder

    def start(self, request: Request, now: float) -> Sequence[Event]:
        op = request.op
        if not isinstance(op, Embed):
            raise RequestError("not_a_chat_model", f"Model {op.model} embeds text; it cannot generate.")
        request.embedding_job = EmbeddingJob(op, self._encoder, now, request.load_s)
        self._requests.move(request, RequestStatus.RUNNING)
        return ()

    def step(self, clock: Callable[[], float]) -> Iterator[Event]:
        """Encode one batch of the first request. If more is left of it, it goes behind the others."""
        request = self._requests.first(RequestStatus.RUNNING, model=self._model)
        if request is None:
            return
        if request.embedding_job.step():
            self._requests.finish(request)
            yield request.embedding_job.answer(clock())
        else:
            self._requests.move_to_back(request)

    def cancel(self, request: Request, now: float) -> Done:
        self._requests.finish(request)
        return Done(request.id, "cancelled", Usage(0, 0))
