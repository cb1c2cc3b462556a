"""One HTTP request that generates an answer, independent of the connection over which it came."""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from mlx_server import protocol
from mlx_server.gateway.answer_log import Accepted, AnswerLog, Event, Left, Silence
from mlx_server.gateway.errors import GatewayError
from mlx_server.gateway.kept_answers.history import History, events_of
from mlx_server.gateway.kept_answers.received_body import ReceivedBody
from mlx_server.gateway.kept_answers.rendering import CopyElsewhere, Rendering
from mlx_server.gateway.requests.resumed import ResumedRequest
from mlx_server.gateway.requests.ticket import TicketItem
from vestal.web.http_error import HttpError

MAX_WRITE_S = 0.3
"""How long a frame may wait for a slow disk before it is sent to the client."""
_SCOPE_KEY = "vestal.kept_answer"


class KeptAnswer:
    """A request from its arrival to the end of its answers. `head` is its first record in the answer log.

    *While it runs.* The attribute `is_accepted` says whether the request was submitted to the dispatcher. The
    event `is_prepared` is set once it was, or at the request's end if that comes first. If `outlives_client`
    is True, the request continues without clients. `referenced` is what the request's body names by an id,
    such as an earlier response (see `Accepted`); the route sets it before it submits a new request.
    `on_over(answer)` is called when none of the request's answers is generated any more.

    *If it is resumed from the log*, `was_accepted` is True, and `history` holds the items (events and
    keep-alives) that clients have received already. It has the same `referenced`, `random` (the source of its
    random numbers) and `created_s` (when it was first accepted, in seconds since 1970) as in its first run,
    so that it makes the same frames.

    *If it fails*, `offer(answer, error)` is called before clients see the error. To have another machine
    continue the request, `offer` calls the answer's `begin_offer`, and `settle` after the machine's reply.
    """

    def __init__(
        self,
        head: Accepted,
        log: AnswerLog,
        on_over: Callable[[KeptAnswer], None],
        history: History = (),
        *,
        was_accepted: bool = False,
        offer: Callable[[KeptAnswer, HttpError], None] = lambda answer, error: None,
    ) -> None:
        self.head = head
        self.history = history
        self.random = random.Random(head.seed)
        self.referenced = head.referenced
        self.rendering = Rendering()
        self.outlives_client = False
        self.first_frames: list[int] = []  # for each client that follows: the first frame that it reads
        self.body = ReceivedBody()
        self.client_left = asyncio.Event()
        self.is_detached = False
        self.is_accepted = False
        self.is_prepared = asyncio.Event()
        self.request_ids: set[str] = set()
        self.elsewhere: CopyElsewhere | None = None
        self.task: asyncio.Task[None] | None = None
        self.failure: HttpError | None = None
        self.is_offered = False
        self._has_ended_by_error = False
        self.has_news = asyncio.Event()
        self._offer = offer
        self._log = log
        self._on_over = on_over
        self._was_accepted = was_accepted
        self._unfinished: set[int] = set()
        self._written: asyncio.Future[None] | None = None
        self._has_unwritten = False
        self._disk_is_slow = False

    @property
    def id(self) -> str:
        return self.head.id

    @property
    def created_s(self) -> float:
        return self.head.created_s

    @property
    def body_digest(self) -> str:
        """Return the digest of the request's body, which has arrived."""
        return self.head.body_digest or self.body.digest

    @property
    def has_all_events(self) -> bool:
        """Return whether the engine has finished all answers of the request."""
        return self.is_accepted and not self._unfinished

    @property
    def is_over(self) -> bool:
        """Return whether the request's task, all its answers and any offer to other machines have ended."""
        return (self.task is None or self.task.done()) and not (self._unfinished or self.is_offered)

    # --- the route, through `GatewayContext` ---

    def resumed(self, number: int) -> ResumedRequest:
        """Return the state with which the dispatcher starts or resumes one of the answers to this request:
        number `number`, from 0. In a resumed request, each answer gets a new id, because the engine may still
        be cancelling the answer under the earlier id.
        """
        public_id = self.id if number == 0 else f"{self.id}-{number}"
        request_id = f"{public_id}.{secrets.token_hex(4)}" if self._was_accepted else public_id
        self.request_ids.add(request_id)
        events = events_of(self.history, number)
        return ResumedRequest(request_id, public_id, events, self._was_accepted, self.created_s)

    def accept(self, count: int, *, outlives_client: bool = False) -> None:
        """Record that the `count` answers to the request (several with OpenAI's `n` or a list of prompts)
        were submitted to the dispatcher. Begin the request's file in the answer log, unless the request was
        resumed from this file. If the last client has left already, suspend the request until a client asks
        for its answer; with `outlives_client`, the request continues without clients instead.
        """
        self.is_accepted, self.outlives_client = True, outlives_client
        self.is_prepared.set()
        if outlives_client:
            self.client_left.clear()
        ended = {number for number, item in self.history if isinstance(item, protocol.Done)}
        self._unfinished = set(range(count)) - ended
        if not self._was_accepted:
            self._log.begin(self._head_to_write, self.body.take_parts())
            self._written = asyncio.ensure_future(self._log.flush())
        elif not self._unfinished:  # a gateway may die between the last event and the record of the end
            self._log.ended(self.id)
        if self.client_left.is_set():
            self.leave()

    @property
    def is_written_down(self) -> bool:
        """Return whether the request's file in the log was begun."""
        return self._was_accepted or self.is_accepted

    @property
    def whole_head(self) -> Accepted:
        """Return `head` together with the request's body. This may only be read after the whole body has
        arrived, and before `accept` moves the body to the log.
        """
        return msgspec.structs.replace(self._head_to_write, body=self.body.peek())

    @property
    def _head_to_write(self) -> Accepted:
        return msgspec.structs.replace(self.head, body_digest=self.body.digest, referenced=self.referenced)

    def record(self, number: int, item: TicketItem | Silence) -> None:
        """Write `item`, before clients receive it, to the request's file in the log. `item` is an event of
        answer number `number` (from 0) or a `Silence` for a keep-alive. If it is an error (GatewayError: the
        request has failed; ClientDisconnected: it was cancelled), delete the file instead. Keep the file
        while another machine is asked to continue the request, or if a ClientDisconnected only suspends it.
        """
        if self.is_detached:
            return
        if isinstance(item, Silence):
            self._log.append(self.id, item)
            self._has_unwritten = True
        elif isinstance(item, protocol.Token | protocol.Done):
            self._log.append(self.id, Event(number, item))
            self._has_unwritten = True
            self.has_news.set()
            if isinstance(item, protocol.Done):
                self._finished(number)
        elif isinstance(item, GatewayError):
            self._has_ended_by_error = True
            self.fail(item)
            if not self.is_offered:
                self._give_up()
        elif self.client_left.is_set():
            self._unfinished.discard(number)
        elif not self.is_offered:
            self._give_up()
        if self.is_over:
            self._on_over(self)

    def fail(self, error: HttpError) -> None:
        """Record the error that the response is going to show. Unless the answer is already being offered to
        other machines, offer it, so that one of them can continue it before the client sees the error.
        """
        if self.is_detached or self.failure is not None:
            return
        self.failure = error
        self.has_news.set()
        if not self.is_offered:
            self._offer(self, error)

    def _give_up(self) -> None:
        self._log.forget(self.id)
        self._unfinished.clear()

    def _finished(self, number: int) -> None:
        self._unfinished.discard(number)
        if not self._unfinished:
            self._log.ended(self.id)

    async def wait_until_written(self) -> None:
        """Wait until all items so far are written to the log, but at most MAX_WRITE_S. Once a write has taken
        longer, further calls return at once until that write is done.

        A frame is sent only after the items that it is made from are written. Otherwise, if the gateway died
        in between, the client would have a frame that the next gateway does not know. That gateway could give
        the frame's number to a keep-alive or to a token of another answer (OpenAI's `n`), and the client,
        which reads on after this number, would get some text twice or not at all.
        """
        if self._written is not None and self._disk_is_slow and not self._written.done():
            return
        self._disk_is_slow = False
        try:
            async with asyncio.timeout(MAX_WRITE_S):
                while True:
                    if self._written is not None:
                        await asyncio.shield(self._written)
                    if self.is_detached or not self._has_unwritten:
                        return
                    self._has_unwritten = False
                    self._written = asyncio.ensure_future(self._log.flush())
        except TimeoutError:
            self._disk_is_slow = True

    @property
    def needs_keep_alives(self) -> bool:
        """Return whether to make keep-alives now: a client reads the stream, or `outlives_client` is True.

        Return False, however, while a client already has frames that this gateway must make again, because an
        earlier gateway died before it wrote them to the log. A keep-alive takes the next frame number, and
        would shift the numbers of those frames, so that the client would get some text twice.
        """
        is_missing_frames = len(self.rendering.frames) < max(self.first_frames, default=0)
        if self._was_accepted and is_missing_frames:
            return False
        return bool(self.first_frames) or self.outlives_client

    # --- the client ---

    def leave(self) -> None:
        """Suspend the request, because its last client has left, until a client asks for the answer."""
        if self._unfinished and not self.is_detached:
            self._log.append(self.id, Left())
        self.client_left.set()

    def detach(self) -> None:
        """Write no more to the log, because another gateway continues the answer or a later gateway will."""
        self.is_detached = True

    # --- another machine ---

    def begin_offer(self) -> None:
        """Hold back new frames until `settle`, because another machine is asked to continue the answer."""
        self.is_offered = True
        self.rendering.hold()

    def settle(self, elsewhere: CopyElsewhere | None) -> None:
        """End the offer that `begin_offer` began. If no machine accepted it (`elsewhere` is None), continue
        here; else stop here, and have clients read the rest through `elsewhere` from the other machine.
        """
        self.is_offered = False
        if self.is_detached:  # it was handed over meanwhile, or this gateway ends
            self.rendering.release()
        elif elsewhere is not None:
            self._pass_to(elsewhere)
        else:
            if self._has_ended_by_error:
                self._give_up()
            self.rendering.release()
        if self.is_over:
            self._on_over(self)

    def _pass_to(self, elsewhere: CopyElsewhere) -> None:
        """Stop the request here, and have clients read the rest through `elsewhere` from another machine. The
        records stay in the log, so that the request can continue here if that machine is lost.
        """
        if not self.is_written_down:
            self._log.begin(self._head_to_write, self.body.take_parts())
        self._log.append(self.id, Left())
        self.move_to(elsewhere)
        self._unfinished.clear()
        self.client_left.set()

    def move_to(self, elsewhere: CopyElsewhere) -> None:
        """Write no more to the log, and have clients read the rest of the answer through the function
        `elsewhere`, which copies it from another gateway.
        """
        self.detach()
        self.elsewhere = elsewhere
        self.rendering.freeze()


def keep(scope: Any, answer: KeptAnswer) -> None:
    """Store `answer` in the ASGI scope of the route that generates it."""
    scope[_SCOPE_KEY] = answer


def kept_answer_of(scope: Mapping[str, Any]) -> KeptAnswer | None:
    """Return the KeptAnswer that `keep` put into the ASGI scope; None if the answer is not kept."""
    answer = scope.get(_SCOPE_KEY)
    return answer if isinstance(answer, KeptAnswer) else None
