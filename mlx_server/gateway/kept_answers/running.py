"""The answers that run in a gateway, each in a task of its own."""

from __future__ import annotations

import asyncio

from starlette.types import ASGIApp, Scope

from mlx_server.gateway.answer_log import AnswerLog
from mlx_server.gateway.kept_answers.kept_answer import KeptAnswer, keep
from mlx_server.gateway.kept_answers.rendering import Receive
from vestal.web.http_error import HttpError

MAX_GONE = 1000


class RunningAnswers:
    """Runs the requests whose answers are to be stored, and finds a running answer by its id or by the digest
    of its idempotency key.

    An answer that has ended may be missing in the answer log, for example because its request failed. The ids
    of the latest MAX_GONE such answers are remembered, so that a client that asks for one of them gets the
    error that the answer is gone, and not that its id is unknown.

    The attribute `app` must be set before the first request. It is the ASGI application that the middleware
    KeepAnswers wraps; the routes of this application write the responses.
    """

    def __init__(self, answer_log: AnswerLog) -> None:
        self.app: ASGIApp | None = None
        self._log = answer_log
        self._gone: dict[str, None] = {}  # the latest last
        self._by_id: dict[str, KeptAnswer] = {}
        self._by_key: dict[str, KeptAnswer] = {}

    def all(self) -> tuple[KeptAnswer, ...]:
        """Return all running answers, the oldest first."""
        return tuple(self._by_id.values())

    def get(self, answer_id: str) -> KeptAnswer | None:
        """Return the running answer with this id; None if there is none."""
        return self._by_id.get(answer_id)

    async def of_key(self, key_digest: str) -> KeptAnswer | None:
        """Return the running answer to the request with this idempotency key; None if there is none. If the
        client of the request has left, wait first until the request is prepared: only then is it known
        whether the request continues without clients.
        """
        answer = self._by_key.get(key_digest)
        if answer is not None and answer.client_left.is_set():
            await answer.is_prepared.wait()
            return self._by_key.get(key_digest)
        return answer

    def is_gone(self, answer_id: str) -> bool:
        """Return whether the answer ran here, has ended, and is not in the answer log."""
        return answer_id in self._gone

    def run(self, answer: KeptAnswer, scope: Scope, receive: Receive) -> None:
        """Start a task in which the ASGI application `self.app` serves the answer's request, with this
        `scope` and `receive`. The messages that it sends are stored in `answer.rendering`.
        """
        keep(scope, answer)
        self._by_id[answer.id] = answer
        if answer.head.key_digest:
            self._by_key[answer.head.key_digest] = answer
        answer.task = asyncio.ensure_future(self._make_response(answer, scope, receive))
        answer.task.add_done_callback(lambda _: self._ended(answer))

    async def _make_response(self, answer: KeptAnswer, scope: Scope, receive: Receive) -> None:
        try:
            assert self.app is not None
            await self.app(scope, receive, answer.rendering.take)
            answer.rendering.end()
        except Exception as error:
            answer.rendering.end(error)

    def _ended(self, answer: KeptAnswer) -> None:
        """Handle the end of the answer's task. The task calls this method back when it is done: its own code
        could not do this, because a task that is cancelled before its first step runs none of it. The clients
        of the answer would then wait without end.
        """
        if answer.task is not None and answer.task.cancelled():
            answer.rendering.cut_off(gateway_stops())
        answer.body.is_whole.set()
        answer.is_prepared.set()
        self.release(answer)

    def release(self, answer: KeptAnswer) -> None:
        """Remove an answer from memory, unless its response is still being written, the engine still works on
        it, or another machine is being asked to continue it. A later request for the answer finds it in the
        answer log.
        """
        if not answer.is_over:
            return
        if answer.is_accepted and not self._log.has(answer.id):
            self._gone[answer.id] = None
            while len(self._gone) > MAX_GONE:
                del self._gone[next(iter(self._gone))]
        if self._by_id.get(answer.id) is answer:
            del self._by_id[answer.id]
        key = answer.head.key_digest
        if key and self._by_key.get(key) is answer:
            del self._by_key[key]

    @property
    def written_requests(self) -> set[str]:
        """Return the ids, as the engine knows them, of the running requests that are in the answer log, so
        that another gateway could continue them.
        """
        written = (answer.request_ids for answer in self._by_id.values() if self._log.has(answer.id))
        return {request_id for ids in written for request_id in ids}

    @property
    def has_unwritten(self) -> bool:
        """Return whether any response is incomplete while its request is not in the answer log, so that no
        other gateway could continue it.
        """
        return any(
            not answer.rendering.is_complete and not self._log.has(answer.id)
            for answer in self._by_id.values()
        )


def gateway_stops() -> HttpError:
    """Return the error for a client that asks for an answer while the gateway stops."""
    message = "The server is stopping; ask for this answer again when it is back."
    return HttpError("draining", message, status=503, retry_after_s=1)
