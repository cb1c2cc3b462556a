"""Streamed answers: they begin within a second, are never silent for long, and end if the client leaves.

A stream begins at the first event, or BEGIN_AFTER_S after its request was accepted. The engine has usually
checked the request by then. A failure before the beginning is answered with its own HTTP status; a later
failure becomes the dialect's error event.

While no event comes, because the request waits for its turn, its model or an engine, or because its prompt is
long, the dialect's keep-alive is sent (`AnswerRenderer.idle`). docs/decisions/0021-never-silent.md says which
keep-alive each dialect has, and why.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Protocol, TypeVar

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from mlx_server.gateway.dialects.answer_parts import AnswerPart
from mlx_server.gateway.dialects.answers import Answers
from mlx_server.gateway.dialects.error_envelopes import request_id_headers
from mlx_server.gateway.errors import GatewayError, ServerFault
from mlx_server.gateway.requests.ticket import ClientDisconnected
from vestal.supervision.cancelled_task import cancel_and_wait
from vestal.web import server_sent_events

log = logging.getLogger(__name__)

T = TypeVar("T")
NDJSON = "application/x-ndjson"
SSE = server_sent_events.MEDIA_TYPE


class AnswerRenderer(Protocol):
    """Writes the parts of a streamed answer in one dialect. It does no I/O, but it remembers what it has
    written.

    A frame is what the dialect's clients read as one unit: a line of NDJSON, or a server-sent event with the
    empty line after it. Each method returns the frames to send, of which there may be none.
    """

    def begin(self) -> Iterable[bytes]:
        """Return the frames before the first part."""

    def idle(self) -> Iterable[bytes]:
        """Return a keep-alive: a frame that shows a waiting client that its request is alive, and adds no
        content.
        """

    def part(self, index: int, part: AnswerPart) -> Iterable[bytes]:
        """Return the frames for a part of answer number `index`. If `part.done` is set, also return the
        frames that end the answer.
        """

    def end(self) -> Iterable[bytes]:
        """Return the frames after the ends of all answers."""

    def error(self, error: GatewayError) -> Iterable[bytes]:
        """Return the last frames of a stream that fails after its status 200 was sent."""


async def stream_answers(
    http: Request, answers: Answers, renderer_for: Callable[[], AnswerRenderer], media_type: str
) -> Response:
    """Wait until the first event of `answers` arrives or the time for this is over (`answers.wait_left_s()`
    is 0), and return the streamed response. If a request fails during this wait, raise its error; if the
    client leaves, raise ClientDisconnected.

    `renderer_for` is called after the wait, and returns the renderer that writes the stream.
    `answers.prompt_tokens` is then the length of the first prompt, or None if no engine could check the
    request.
    """
    await cancel_on_disconnect(http, answers, answers.wait_for_start())
    try:
        return StreamedResponse(answers, _frames(answers, renderer_for()), media_type)
    except BaseException:
        answers.cancel()
        raise


async def _frames(answers: Answers, renderer: AnswerRenderer) -> AsyncIterator[bytes]:
    try:
        for frame in renderer.begin():
            yield frame
        answers.begin_with_keep_alive()
        async for arrived in answers.parts():
            for frame in renderer.part(*arrived) if arrived else renderer.idle():
                yield frame
        for frame in renderer.end():
            yield frame
    except GatewayError as error:
        for frame in renderer.error(error):
            yield frame
    except ClientDisconnected:
        raise
    except Exception as error:  # a bug in a renderer: the client reads an error instead of a cut line
        log.exception("The stream of %s could not be written", answers.id)
        message = (
            f"The gateway could not write this answer ({type(error).__name__}); its log has the details."
        )
        for frame in renderer.error(ServerFault("internal_error", message)):
            yield frame


class Cancellable(Protocol):
    """A request, or several requests, that can be cancelled."""

    @property
    def id(self) -> str: ...
    def cancel(self) -> None: ...


async def cancel_on_disconnect(http: Request, work: Cancellable, result: Awaitable[T]) -> T:
    """Wait for `result` and return its value. If the client disconnects first, cancel `work`, so that
    `result` raises ClientDisconnected.
    """
    watch = asyncio.ensure_future(_cancel_when_disconnected(http.receive, work))
    try:
        try:
            return await result
        finally:
            await cancel_and_wait(watch)
    except BaseException:
        work.cancel()
        raise


class StreamedResponse(Response):
    """A response whose body is sent frame by frame. If the client disconnects, `work` is cancelled."""

    def __init__(self, work: Cancellable, frames: AsyncIterator[bytes], media_type: str) -> None:
        self.status_code = 200
        self.media_type = media_type
        self.background = None
        self._work = work
        self._frames = frames
        self.init_headers({"cache-control": "no-cache", **request_id_headers(work.id)})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        watch = asyncio.ensure_future(_cancel_when_disconnected(receive, self._work))
        try:
            await send(
                {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
            )
            with contextlib.suppress(ClientDisconnected):
                async for frame in self._frames:
                    await send({"type": "http.response.body", "body": frame, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            self._work.cancel()
            await cancel_and_wait(watch)


async def _cancel_when_disconnected(receive: Callable[[], Awaitable[object]], work: Cancellable) -> None:
    while (await receive()) != {"type": "http.disconnect"}:
        pass
    work.cancel()
