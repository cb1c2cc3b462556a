"""All stored answers: those that run in this gateway, and those in the answer log."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec
from starlette.types import ASGIApp, Scope

from mlx_server.gateway.answer_log import Accepted, AnswerLog, Ended, Left, LogAtEnd, Record, TakenUp
from mlx_server.gateway.kept_answers import runs
from mlx_server.gateway.kept_answers.first_record import first_record
from mlx_server.gateway.kept_answers.kept_answer import KeptAnswer
from mlx_server.gateway.kept_answers.offers import MirroredElsewhere, Offers
from mlx_server.gateway.kept_answers.received_body import ReceivedBody
from mlx_server.gateway.kept_answers.rendering import CopyElsewhere, Receive
from mlx_server.gateway.kept_answers.running import RunningAnswers, gateway_stops
from vestal.supervision import Clock
from vestal.web.http_error import HttpError

NO_LONGER_KEPT = (
    "This answer is no longer kept: it failed, was cancelled, is older than mlx.keep_answers_s, "
    "or could not be written down."
)


class AnswerKeeper:
    """Runs the requests that generate, each in a task of its own, and finds their answers by answer id or by
    idempotency key.

    `offers` asks gateways on other machines to continue answers; `mirrored` continues answers of other
    machines. `is_closed` is True once the answer log is closed, so that another gateway can open it.
    """

    def __init__(self, answer_log: AnswerLog, clock: Clock) -> None:
        self.offers = Offers(answer_log)
        self.mirrored: MirroredElsewhere | None = None
        self.log = answer_log
        self._clock = clock
        self.is_closed = False
        self._is_detached = False
        self._application: Any = None
        self._running = RunningAnswers(answer_log)
        self._reviving: dict[str, asyncio.Task[KeptAnswer]] = {}

    @property
    def running(self) -> Sequence[KeptAnswer]:
        """Return the answers that run in this gateway."""
        return self._running.all()

    @property
    def offered(self) -> set[str]:
        """Return the ids of the answers that another machine is being asked to continue."""
        return {answer.id for answer in self.running if answer.is_offered}

    @property
    def written_requests(self) -> set[str]:
        """Return the ids that the engine uses for the running requests that are in the answer log, from which
        another gateway could continue them.
        """
        return self._running.written_requests

    @property
    def has_unwritten(self) -> bool:
        """Return whether the answer log lacks the request of any response that is still incomplete."""
        return self._running.has_unwritten

    def use_app(self, app: ASGIApp) -> None:
        """Set the ASGI application that writes the responses (the one that the middleware wraps)."""
        self._running.app = app

    # --- new requests ---

    def start(self, scope: Scope, receive: Receive, key_digest: str | None = None) -> KeptAnswer:
        """Start a request, whose body is read from `receive`, and return its answer. `key_digest` is the
        digest of its idempotency key, or None.
        """
        head = first_record(scope, self._clock.wall(), key_digest)
        answer = KeptAnswer(head, self.log, self._running.release, offer=self.offers.offer_failed)
        own_scope = {**scope, "state": dict(scope.get("state", {}))}
        self._running.run(answer, own_scope, runs.receiving(receive, answer, self.offers.place))
        return answer

    def with_connection(self, scope: Scope, path: str, body: ReceivedBody) -> KeptAnswer:
        """Return the answer to a request that cannot run without its connection, such as a message over the
        WebSocket with this `scope`. It is not among the `running` answers, and is written to the answer log
        once it has ended, as the answer to a POST request with this path and body.
        """
        posted = {**scope, "method": "POST", "path": path, "query_string": b""}
        log = LogAtEnd(self.log, lambda: not self._is_detached)
        answer = KeptAnswer(first_record(posted, self._clock.wall()), log, lambda ended: None)
        answer.body = body
        answer.first_frames.append(0)  # its client reads it from the beginning
        return answer

    async def take_over(self, records: Sequence[Record]) -> KeptAnswer:
        """Continue an answer that was begun on another machine, and return it. If this gateway has the answer
        already, return that one, and ignore `records`, which are the answer's log records from that machine.
        Raises HttpError if they cannot be written to the answer log of this gateway.
        """
        head = records[0]
        assert isinstance(head, Accepted)
        if self.has(head.id):  # no `await` before `_take_up`, so that nobody else begins the answer meanwhile
            return await self.find(head.id)
        self.log.begin(head)
        for record in records[1:]:
            self.log.append(head.id, record)
        if not self.is_logged(head.id):
            message = "This gateway cannot write the answer down, and so cannot take it over."
            raise HttpError("engine_unavailable", message, status=503)
        return self._take_up(records)

    def offer_running(self, error: HttpError) -> None:
        """Ask other machines to continue the unfinished answers, which this gateway cannot finish because of
        `error`. An answer that no machine accepts stays on this machine.
        """
        self.offers.offer_running(self.running, error)

    # --- earlier requests ---

    def running_answer(self, answer_id: str) -> KeptAnswer | None:
        """Return the answer with this id if it runs in this gateway, else None."""
        return self._running.get(answer_id)

    def has(self, answer_id: str) -> bool:
        """Return whether the answer is running here or is in the log."""
        return self._running.get(answer_id) is not None or self.is_logged(answer_id)

    def is_logged(self, answer_id: str) -> bool:
        """Return whether the answer is in the log, whether it has ended or not."""
        return self.log.has(answer_id)

    def forget(self, answer_id: str) -> None:
        """Delete an answer from the log, unless another gateway continues the answer or may be about to do
        so.
        """
        answer = self._running.get(answer_id)
        if not self._is_detached and (answer is None or not answer.is_offered):
            self.log.forget(answer_id)

    async def find(self, answer_id: str) -> KeptAnswer:
        """Return the answer with this id. If its request runs neither here nor on another machine, run it
        again: from its records in the answer log, or from the copy of them that another machine has mirrored
        here. Only what the records lack is generated.

        Raises HttpError if the id is unknown (404) or the answer was deleted (410).
        """
        answer = self._running.get(answer_id)
        if answer is not None and not answer.client_left.is_set():
            return answer
        if answer_id not in self._reviving:
            if not self.has(answer_id) and self.mirrored and (found := await self.mirrored.find(answer_id)):
                return found
            self.check_logged(answer_id)
            task = asyncio.ensure_future(self._revive(answer_id, answer))
            self._reviving[answer_id] = task
            task.add_done_callback(lambda _: self._reviving.pop(answer_id, None))
        return await asyncio.shield(self._reviving[answer_id])

    def check_logged(self, answer_id: str) -> None:
        """Raise HttpError if the answer is not in the log: with status 404 if its id is unknown, else with
        410.
        """
        status = self.log.status(answer_id)
        if status is None and not self._running.is_gone(answer_id):
            message = f"There is no answer with the id {answer_id[:80]!r}: none was begun here."
            raise HttpError("stream_not_found", message, status=404)
        if not self.log.has(answer_id):
            raise HttpError("stream_expired", NO_LONGER_KEPT, status=410)

    async def find_by_key(self, key_digest: str) -> KeptAnswer | None:
        """Return the answer to the first request with this idempotency key; None if there is none. Raises
        HttpError if the answer existed but can no longer be read.
        """
        answer = await self._running.of_key(key_digest)
        if answer is not None and not answer.client_left.is_set():
            return answer
        answer_id = answer.id if answer else self.log.id_of_key(key_digest)
        if answer_id is None or not self.is_logged(answer_id):
            return await self.mirrored.find_by_key(key_digest) if self.mirrored is not None else None
        return await self.find(answer_id)

    async def _revive(self, answer_id: str, stopping: KeptAnswer | None) -> KeptAnswer:
        """Run the request again from its records in the log, after the run `stopping` has ended. Raises
        HttpError if the records are lost (410) or this gateway may not write to the log any more (503).
        """
        if self._is_detached:
            raise gateway_stops()
        if stopping is not None and stopping.task is not None:
            await asyncio.wait([stopping.task])
        records = await self.log.records(answer_id)
        if not records or not isinstance(records[0], Accepted):
            raise HttpError("stream_expired", NO_LONGER_KEPT, status=410)
        elsewhere = await self._running_elsewhere(records)
        if self._is_detached:  # meanwhile
            raise gateway_stops()
        return elsewhere or self._take_up(records)

    async def _running_elsewhere(self, records: Sequence[Record]) -> KeptAnswer | None:
        """If another machine continues the request whose records in the answer log are `records`, return an
        answer that passes that machine's frames on to this gateway's clients, and runs nothing here. Return
        None if no machine continues the request, or if the request has ended.
        """
        elsewhere = await self.elsewhere(records)
        if elsewhere is None:
            return None
        head = records[0]
        assert isinstance(head, Accepted)
        answer = KeptAnswer(msgspec.structs.replace(head, body=b""), self.log, self._running.release)
        answer.body.is_whole.set()
        answer.move_to(elsewhere)
        return answer

    async def elsewhere(self, records: Sequence[Record], *, only_looks: bool = False) -> CopyElsewhere | None:
        """Return a function that reads from another machine the answer whose records in the answer log are
        `records`. Return None if no other machine has the answer, or if the answer has ended.

        If the result is None, the caller continues the answer on this machine; a caller that only wants to
        know whether another machine has the answer passes `only_looks`.
        """
        head = records[0]
        assert isinstance(head, Accepted)
        if self.offers.others is None or isinstance(records[-1], Ended):
            return None
        return await self.offers.others.holding(head, only_looks=only_looks)

    def _take_up(self, records: Sequence[Record]) -> KeptAnswer:
        head = runs.head_of(records)
        assert head is not None
        if runs.is_suspended(records):
            self.log.append(head.id, TakenUp())
        answer = KeptAnswer(
            msgspec.structs.replace(head, body=b""),
            self.log,
            self._running.release,
            runs.history_of(records),
            was_accepted=True,
            offer=self.offers.offer_failed,
        )
        answer.body.is_whole.set()
        scope = runs.scope_of(head, self._application)
        self._running.run(answer, scope, runs.replaying(head.body, answer))
        return answer

    async def take_up_unfinished(self, application: Any) -> int:
        """Resume the requests that an earlier gateway left unfinished, except those whose client had left and
        those that another machine continues. Return how many requests were resumed.

        A request whose client had left is resumed by `find`, once a client asks for its answer. `application`
        is the object that the routes find under `app` in their ASGI scope.
        """
        self._application = application
        taken_up = 0
        for answer_id in self.log.unfinished():
            records = await self.log.records(answer_id) or ()
            if runs.head_of(records) is None or runs.is_suspended(records):
                continue
            if await self.elsewhere(records) is not None:
                self.log.append(answer_id, Left())  # a peer took the answer over while no gateway ran here
                continue
            self._take_up(records)
            taken_up += 1
        return taken_up

    def move_to(self, elsewhere: CopyElsewhere) -> int:
        """Write no more to the log, and have the clients of logged answers read the rest through the function
        `elsewhere`, from another gateway. Return the number of these answers.
        """
        for answer in self.running:
            if self.is_logged(answer.id):
                answer.move_to(elsewhere)
        self.detach()
        return sum(answer.elsewhere is not None for answer in self.running)

    def detach(self) -> None:
        """Write no more to the log, because another gateway continues the answers that run here."""
        self._is_detached = True
        for answer in self.running:
            answer.detach()

    def sweep(self) -> None:
        """Delete the expired answers. This must be called every few seconds."""
        if not self.is_closed:
            self.log.sweep()

    async def close(self) -> None:
        """Stop all running requests and close the log, from which the next gateway can resume them."""
        self.detach()
        tasks = [answer.task for answer in self.running if answer.task is not None]
        tasks += self.offers.tasks
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self.offers.others is not None:
            self.offers.others.stop_writing()
        if not self.is_closed:
            self.is_closed = True
            await self.log.close()
