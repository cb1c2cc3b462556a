"""ASGI middleware that runs generating POST requests independently of their connections, and gives requests
with the same Idempotency-Key the same answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import Callable, Container

from starlette.types import ASGIApp, Scope

from mlx_server.gateway.kept_answers.keeper import AnswerKeeper
from mlx_server.gateway.kept_answers.kept_answer import KeptAnswer
from mlx_server.gateway.kept_answers.received_body import ReceivedBody
from mlx_server.gateway.kept_answers.rendering import (
    BrokenOff,
    Copied,
    CopyElsewhere,
    Message,
    Receive,
    Send,
)
from mlx_server.gateway.kept_answers.running import gateway_stops
from vestal.supervision.cancelled_task import cancel_and_wait
from vestal.web.guard import CLOSING
from vestal.web.http_error import HttpError

MAX_KEY_BYTES = 255
LOST = "The server was replaced, and the new one died before it answered; send the request again."
SUSPENDED = "The answer was suspended just now, because its last client left; ask for it again."
NOT_KEPT = (
    "The first request with this Idempotency-Key has ended, and its answer is not kept; send this one again."
)
REPEATED_BODY_S = 60.0
"""How long the body of a repeated request, whose answer exists already, may take to arrive."""


class KeepAnswers:
    """ASGI middleware that runs each POST request to one of `paths` in a task of its own and stores the
    answer, so that clients can reconnect to it. Every other request is passed to `app`.

    If an Idempotency-Key was used before, the body of the repeated request is only compared with the earlier
    body, and is refused if it exceeds `max_body_bytes`; for all other bodies, `app` checks the size.
    `respond` takes an error and the request's path, and returns the ASGI application that sends the error.
    """

    def __init__(
        self,
        app: ASGIApp,
        keeper: AnswerKeeper,
        paths: Container[str],
        max_body_bytes: int,
        respond: Callable[[HttpError, str], ASGIApp],
    ) -> None:
        self._app = app
        keeper.use_app(app)
        self._keeper = keeper
        self._paths = paths
        self._max_body_bytes = max_body_bytes
        self._respond = respond

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST" or scope["path"] not in self._paths:
            await self._app(scope, receive, send)
            return
        has_started = False

        async def sending(message: Message) -> None:
            nonlocal has_started
            has_started = True
            await send(message)

        try:
            await follow(await self._answer(scope, receive), 0, receive, sending)
        except HttpError as error:
            await self._respond(error, scope["path"])(scope, receive, send)
        except asyncio.CancelledError:  # the gateway ends; uvicorn would answer with a 500
            if not has_started:
                await self._respond(gateway_stops(), scope["path"])(scope, receive, send)
            raise

    async def _answer(self, scope: Scope, receive: Receive) -> KeptAnswer:
        """Return the stored answer to the earlier request that had the same Idempotency-Key. If this request
        has no such key, or no answer is stored for it (the key is new, or the earlier answer was deleted),
        start this request and return its answer, which is stored while it is generated.

        Raises HttpError if the key is too long or was used for another path or body, if the stored answer
        cannot be read or is deleted while the body of this request arrives, or if the body of a repeated
        request is too large or arrives too slowly.
        """
        key = _key_digest(scope)
        earlier = await self._keeper.find_by_key(key) if key else None
        if key is None or earlier is None:
            return self._keeper.start(scope, receive, key)
        digest = await self._digest(receive)
        await earlier.body.is_whole.wait()
        if earlier.client_left.is_set():  # while this body arrived, so that the answer may be cut off
            earlier = await self._keeper.find_by_key(key)
            if earlier is None:
                raise HttpError("engine_unavailable", NOT_KEPT, status=503, retry_after_s=1)
            await earlier.body.is_whole.wait()
        if (earlier.head.path, earlier.body_digest) != (scope["path"], digest):
            message = (
                "Another request with this Idempotency-Key had another body; take a new key for each request."
            )
            raise HttpError("idempotency_key_reused", message, status=409)
        return earlier

    async def _digest(self, receive: Receive) -> str:
        """Return the SHA-256 (hex) of the request's body, which is read from `receive` but not stored. Raises
        HttpError if the body is too large or arrives too slowly.
        """
        body, size_bytes = ReceivedBody(), 0
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(REPEATED_BODY_S):
                while not body.is_whole.is_set() and size_bytes <= self._max_body_bytes:
                    message = await receive()
                    body.add(message)
                    size_bytes += sum(map(len, body.take_parts()))
        if size_bytes > self._max_body_bytes:
            limit = f"The body is over the limit of {self._max_body_bytes} bytes; send less."
            raise HttpError("too_large", limit, headers=CLOSING)
        if not body.is_whole.is_set():
            raise HttpError("request_timeout", "The body comes too slowly; send it again.", headers=CLOSING)
        return body.digest


def _key_digest(scope: Scope) -> str | None:
    """Return a digest of the Idempotency-Key and the API key; None if there is no Idempotency-Key. Raises
    HttpError if the Idempotency-Key is too long.

    The digest includes the API key, so that a client cannot read another client's answer by guessing the
    Idempotency-Key.
    """
    headers: dict[bytes, bytes] = dict(scope["headers"])
    key = headers.get(b"idempotency-key", b"").strip()
    if not key:
        return None
    if len(key) > MAX_KEY_BYTES:
        message = (
            f"Idempotency-Key: give at most {MAX_KEY_BYTES} characters, such as a UUID; this has {len(key)}."
        )
        raise HttpError("invalid_request", message)
    owner = headers.get(b"authorization", b"") + b"\n" + headers.get(b"x-api-key", b"")
    return hashlib.sha256(owner + b"\n" + key).hexdigest()


async def follow(answer: KeptAnswer, first_frame: int, receive: Receive, send: Send) -> None:
    """Send the answer to a client, from frame number `first_frame` on. If another gateway continues the
    answer, copy the rest from that gateway. If the last of the answer's clients leaves before the end,
    suspend the request until a client asks for the answer again, unless the answer's `outlives_client` is
    True.

    If the other gateway does not deliver the rest, or this gateway stops, raise HttpError if nothing was sent
    to the client yet. Otherwise return with the response incomplete, so that the server closes the
    connection. Also raises HttpError if the request was suspended after the caller had looked up `answer`:
    this object gets no further frames, and the client has to ask for the answer again.
    """
    rendering = answer.rendering
    if answer.client_left.is_set() and answer.elsewhere is None:
        raise HttpError("engine_unavailable", SUSPENDED, status=503, retry_after_s=1)
    gone = asyncio.ensure_future(_disconnection(answer, receive))
    gone.add_done_callback(lambda _: rendering.wake())
    answer.first_frames.append(first_frame)
    try:
        copied = await rendering.copy_to(send, first_frame, gone.done, answer.wait_until_written)
        if copied is not None and answer.elsewhere is not None:
            await _copy_rest(answer.elsewhere, answer.id, copied, send, gone)
    finally:
        answer.first_frames.remove(first_frame)
        is_over = rendering.is_complete or rendering.is_frozen
        if not answer.first_frames and not is_over and not answer.outlives_client:
            answer.leave()
        await cancel_and_wait(gone)


async def _copy_rest(
    elsewhere: CopyElsewhere, answer_id: str, copied: Copied, send: Send, gone: asyncio.Future[None]
) -> None:
    """Send a client the rest of an answer that another gateway continues, until the client has gone (`gone`
    is done). `elsewhere` reads the answer from that gateway, and `copied` says how much of it the client has
    already. If that gateway fails, raise HttpError if nothing was sent to the client yet; otherwise return,
    and leave the client's response incomplete.
    """
    has_started = copied.has_started

    async def sending(message: Message) -> None:
        nonlocal has_started
        has_started = True
        await send(message)

    rest = elsewhere(answer_id, copied.next_frame, sending, has_started=copied.has_started)
    try:
        await _unless_gone(asyncio.ensure_future(rest), gone)
    except BrokenOff as error:
        if not has_started:
            raise HttpError("engine_unavailable", LOST, status=503, retry_after_s=1) from error


async def _disconnection(answer: KeptAnswer, receive: Receive) -> None:
    """Wait until the client has disconnected, which its connection's ASGI function `receive` reports.
    `receive` is not called before the body of the request is complete, because the route reads the body from
    it.
    """
    await answer.body.is_whole.wait()
    while (await receive())["type"] != "http.disconnect":
        pass


async def _unless_gone(work: asyncio.Future[None], gone: asyncio.Future[None]) -> None:
    """Wait for `work`, and raise its exceptions. If the client disconnects first (`gone` is done), cancel
    `work`, wait until it has ended, and return.
    """
    try:
        await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
    except asyncio.CancelledError:
        work.cancel()
        raise
    await cancel_and_wait(work)
