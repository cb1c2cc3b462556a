"""How long what does not fit is waited for, and who waits. Pure.

Behind requests of our own it is worth waiting: they end. What other programs hold may never come back, and a
client is told soon. A refusal leaves no trace: the same request, sent again, is judged by the memory of then.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from mlx_server.engine.errors import EngineError
from mlx_server.engine.memory.refusals import MustWait
from mlx_server.protocol import Generate

OTHERS_S = 10.0
"""The longest wait for what is not ours to give back."""

RETRY_S = 0.1
"""How often memory is looked at again, in seconds."""


class WaitPolicy:
    """Since when each of the names has been waiting."""

    def __init__(self, max_wait_s: float) -> None:
        self._max_wait_s = max_wait_s
        self._since: dict[str, float] = {}

    def is_over(self, name: str, patient: bool, now: float) -> bool:
        """Whether `name` has waited long enough; its wait begins with the first call."""
        limit_s = self._max_wait_s if patient else min(OTHERS_S, self._max_wait_s)
        return now - self._since.setdefault(name, now) >= limit_s

    def forget(self, name: str) -> None:
        """It waits no more."""
        self._since.pop(name, None)


@dataclass
class Queued:
    """A request about to start; `wait` is why it could not the last time."""

    op: Generate
    load_s: float
    wait: MustWait | None = None


class Backlog:
    """Generations of loaded models, in order of arrival: the first starts, or all wait behind it.

    Smaller ones do not pass a large one, which would otherwise wait for ever.
    """

    def __init__(self, max_wait_s: float) -> None:
        self._patience = WaitPolicy(max_wait_s)
        self._queue: deque[Queued] = deque()
        self._next_try_s = float("-inf")

    def __len__(self) -> int:
        return len(self._queue)

    @property
    def awaits(self) -> str | None:
        """The model that the first is for: it must not leave meanwhile."""
        return self._queue[0].op.model if self._queue else None

    def put(self, op: Generate, load_s: float) -> None:
        self._queue.append(Queued(op, load_s))

    def due(self, now: float) -> Queued | None:
        """The first, where it is time to try it."""
        return self._queue[0] if self._queue and now >= self._next_try_s else None

    def take(self) -> Queued:
        """The first leaves: it runs, or has been refused."""
        first = self._queue.popleft()
        self._patience.forget(first.op.id)
        self._next_try_s = float("-inf")
        return first

    def postpone(self, wait: MustWait, now: float) -> EngineError | None:
        """The first does not fit now; what to tell its client, where it has waited long enough."""
        first = self._queue[0]
        first.wait, self._next_try_s = wait, now + RETRY_S
        # What an engine's crash cut off goes on, though Metal takes its time to give the dead one's back.
        patient = wait.behind_ours or bool(first.op.emitted)
        if not self._patience.is_over(first.op.id, patient, now):
            return None
        self.take()
        return wait.refusal

    def remove(self, request: str) -> bool:
        """The request's client has left. False where it is not here."""
        for queued in self._queue:
            if queued.op.id == request:
                self._queue.remove(queued)
                self._patience.forget(request)
                self._next_try_s = float("-inf")
                return True
        return False

    def clear(self) -> list[Generate]:
        """All leave."""
        ops = [queued.op for queued in self._queue]
        self._queue.clear()
        return ops
