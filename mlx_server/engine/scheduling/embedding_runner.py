"""An embedding model at work, in the same terms as `runner` has for one that generates."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from mlx_server.engine.embeddings.embedding_job import EmbeddingJob
from mlx_server.engine.embeddings.encoder import Encoder
from mlx_server.engine.errors import RequestError
from mlx_server.engine.scheduling.text_runner import Clock
from mlx_server.protocol import Done, Embed, Event, Generate, Usage


class EmbeddingRunner:
    """The requests of one embedding model, one batch of one of them a step."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self._jobs: deque[EmbeddingJob] = deque()

    def __len__(self) -> int:
        return len(self._jobs)

    @property
    def can_step(self) -> bool:
        return bool(self._jobs)

    def look_ahead(self) -> None:
        """Nothing can be made before it is needed."""

    def tidy(self) -> None:
        """Nothing is put off."""

    def kv_bytes(self) -> int:
        """An encoder keeps none."""
        return 0

    def keep_all(self) -> None:
        """Vectors are not kept."""

    def start(self, op: Generate | Embed, now: float, load_s: float) -> list[Event]:
        """Take up a request. Raises RequestError."""
        if isinstance(op, Generate):
            raise RequestError("not_a_chat_model", f"Model {op.model} embeds text; it cannot generate.")
        self._jobs.append(EmbeddingJob(op, self._encoder, now, load_s))
        return []

    def step(self, clock: Clock) -> Iterator[Event]:
        """One batch of the first job, which then goes to the back: a big one does not hold up small ones."""
        job = self._jobs.popleft()
        if job.step():
            yield job.answer(clock())
        else:
            self._jobs.append(job)

    def cancel(self, request: str, now: float) -> Done | None:
        """Drop a job. None where it is not ours."""
        for job in self._jobs:
            if job.id == request:
                self._jobs.remove(job)
                return Done(request, "cancelled", Usage(0, 0))
        return None

    def requests(self) -> list[str]:
        """Ids of what is in flight."""
        return [job.id for job in self._jobs]

    def close(self) -> None:
        """Drop everything in flight."""
        self._jobs.clear()
