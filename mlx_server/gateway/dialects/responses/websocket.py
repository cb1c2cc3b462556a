"""The Responses API over one WebSocket: any number of turns, one after the other.

A client sends `response.create` with the fields of the HTTP body, and receives the events of the answer as
text messages. The next turn can continue the connection's last response even if that response is not stored.
If a turn fails, the response that it continued can be continued again only if it is stored.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable
from typing import Any

from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from mlx_server.gateway.dialects.bodies import parsed_object, validated
from mlx_server.gateway.dialects.body_budget import SMALL_BYTES, share_of
from mlx_server.gateway.dialects.responses import resource
from mlx_server.gateway.dialects.responses.creation import Responses
from mlx_server.gateway.dialects.responses.schema import CreateBody
from mlx_server.gateway.dialects.responses.stored import StoredResponse
from mlx_server.gateway.dialects.value_limits import check_counts
from mlx_server.gateway.errors import BadRequest, ServerFault
from mlx_server.gateway.json_text import json_bytes
from mlx_server.gateway.kept_answers.received_body import ReceivedBody
from vestal.supervision.cancelled_task import cancel_and_wait
from vestal.web.http_error import HttpError

REPORT_TURN = "vestal.report_turn"
"""The key, in the ASGI scope, of the server's function that is called with True at the beginning of each turn
and with False at its end."""
log = logging.getLogger(__name__)

MAX_CONNECTED_S = 3600.0
MAX_WAITING = 16
CLOSED_NORMALLY, CLOSED_FOR_ABUSE = 1000, 1008
TOO_OLD = "Responses websocket connection limit reached (60 minutes). Create a new websocket connection."


async def serve(responses: Responses, socket: WebSocket) -> None:
    """Serve one connection until it is closed, or is MAX_CONNECTED_S old."""
    await socket.accept()
    conversation = _Conversation(responses, socket)
    inbox = _Inbox(socket, responses.context.max_body_bytes)
    reading = asyncio.ensure_future(inbox.read())
    try:
        with contextlib.suppress(WebSocketDisconnect):
            await _converse(conversation, inbox, socket)
    finally:
        await cancel_and_wait(reading)


async def _converse(conversation: _Conversation, inbox: _Inbox, socket: WebSocket) -> None:
    """Answer the messages of one connection. If the server closes the connection, send the reason to the
    client first.
    """
    try:
        async with asyncio.timeout(MAX_CONNECTED_S):
            while (message := await inbox.next()) is not None:
                await conversation.turn(message, inbox)
    except TimeoutError:
        await conversation.send_error(BadRequest("websocket_connection_limit_reached", TOO_OLD))
        await socket.close(CLOSED_NORMALLY)
        return
    if inbox.refusal:
        await conversation.send_error(inbox.refusal)
        await socket.close(CLOSED_FOR_ABUSE)


class _Inbox:
    """Receives the messages of a connection as they arrive, so that a disconnect is noticed at once.

    If more than MAX_WAITING messages wait for their turn, or the waiting messages have more than `max_bytes`
    together, reading ends, the messages are discarded, and `refusal` is the error with which the connection
    must be closed.
    """

    def __init__(self, socket: WebSocket, max_bytes: int) -> None:
        self.refusal: HttpError | None = None
        self.is_closed = asyncio.Event()
        self._socket = socket
        self._max_bytes = max_bytes
        self._waiting: deque[bytes] = deque()
        self._arrived = asyncio.Event()

    async def read(self) -> None:
        """Receive messages until the connection is closed, or until too many messages or bytes wait for their
        turn. In the latter case, discard them, and set `refusal` to the error for the client.
        """
        while not self.refusal:
            message = await self._socket.receive()
            if message["type"] == "websocket.disconnect":
                break
            raw = message.get("bytes") or (message.get("text") or "").encode("utf-8", "surrogatepass")
            self._waiting.append(raw)
            if len(self._waiting) > MAX_WAITING or sum(map(len, self._waiting)) > self._max_bytes:
                text = (
                    f"Too much waits on this connection ({len(self._waiting)} messages); await each answer."
                )
                self.refusal = BadRequest("invalid_request", text)
                self._waiting.clear()
            self._arrived.set()
        self.is_closed.set()
        self._arrived.set()

    async def next(self) -> bytes | None:
        """Wait for the next message and return it; return None if the connection is closed and all messages
        have been returned.
        """
        while not self._waiting:
            if self.is_closed.is_set():
                return None
            self._arrived.clear()
            await self._arrived.wait()
        return self._waiting.popleft()


class _Conversation:
    """Answers the turns of one connection, and holds the response that the next turn may continue."""

    def __init__(self, responses: Responses, socket: WebSocket) -> None:
        self._responses = responses
        self._socket = socket
        self._latest: StoredResponse | None = None
        self._share = share_of(socket)
        self._report_turn: Callable[[bool], None] = socket.scope.get(REPORT_TURN, lambda is_running: None)

    async def turn(self, message: bytes, inbox: _Inbox) -> None:
        """Answer `message`, one message of the client. If the turn fails, the client receives an event with
        the error.

        Cancel the response if `inbox`, which receives the client's next messages, reports that the connection
        is closed, if an event cannot be sent to the client, or if this call is cancelled. Raises
        WebSocketDisconnect if an event cannot be sent because the client is gone.
        """
        self._report_turn(True)
        try:
            await self._turn(message, inbox)
        finally:
            self._share.give_back()
            self._report_turn(False)

    async def _turn(self, message: bytes, inbox: _Inbox) -> None:
        previous_id = None
        try:
            body, written = await self._read(message)
            previous_id = body.previous_response_id
            turn = self._responses.turn_of(self._socket, body, written)
            response = await self._responses.create(body, turn, self._find)
        except Exception as error:
            self._forget(previous_id)
            await self.send_error(error if isinstance(error, HttpError) else _bug(error))
            return
        del body, written  # the parsed body may be large; a stored turn's bytes stay until they are logged
        closed = asyncio.ensure_future(inbox.is_closed.wait())
        closed.add_done_callback(lambda _: response.run.cancel())
        try:
            await self._follow(response)
        finally:
            closed.cancel()
            response.run.cancel()  # which does nothing if the response has ended
        if response.run.error:
            self._forget(previous_id)
        else:
            self._latest = response

    async def _read(self, message: bytes) -> tuple[CreateBody, ReceivedBody]:
        """Return the body in a message in two forms: parsed, and as the answer log stores it. A large message
        is parsed in a thread. Raises GatewayError if the message is wrong, or if no memory for it becomes
        free in time.
        """
        await self._share.cover(len(message))
        if not self._share.held_bytes:
            return _body_of(message)
        async with self._share.budget.parsing:
            return await asyncio.to_thread(_body_of, message)

    async def _follow(self, response: StoredResponse) -> None:
        """Send the events of `response` until it ends. If the response fails before any output, send a single
        error event instead.
        """
        run = response.run
        await run.wait_for_output()
        if run.refusal:
            self._responses.store.remove(response.id)
            await self.send_error(run.refusal)
            return
        async for event in run.follow():
            await self._socket.send_text(event.data.decode())

    async def send_error(self, error: HttpError) -> None:
        payload = resource.error_payload(error)
        event: dict[str, Any] = {"type": "error", "status": error.status, "error": payload}
        if self._socket.application_state is WebSocketState.CONNECTED:
            await self._socket.send_text(json_bytes(event).decode())

    async def _find(self, response_id: str) -> StoredResponse | None:
        if self._latest is not None and self._latest.id == response_id:
            return self._latest
        return await self._responses.earlier.find(response_id)

    def _forget(self, response_id: str | None) -> None:
        if self._latest is not None and self._latest.id == response_id:
            self._latest = None


def _bug(error: Exception) -> ServerFault:
    """Log an unexpected exception, and return the error for the client."""
    log.exception("A turn over a WebSocket failed")
    message = f"The gateway failed on this request ({type(error).__name__}); its log has the details."
    return ServerFault("internal_error", message)


def _body_of(message: bytes) -> tuple[CreateBody, ReceivedBody]:
    """Return the request body in a WebSocket message in two forms: parsed, and as the JSON bytes that the
    body of an HTTP request would have, which the answer log stores. The second form is empty if the response
    is not to be stored. Raises BadRequest if the message is not a valid event `response.create`, and TooLarge
    if its JSON has too many values.
    """
    is_large = len(message) > SMALL_BYTES
    if is_large:
        check_counts(message)
    event = parsed_object(message, stepwise=is_large)
    if event.get("type") != "response.create":
        raise BadRequest("invalid_request", "type: only `response.create` is known here", param="type")
    if event.get("background"):
        message_text = "background: leave it out; the events of a WebSocket's response are sent at once"
        raise BadRequest("invalid_request", message_text, param="background")
    # According to the specification, clients leave `stream` out. Codex sends it, without any effect.
    posted = {**event, "stream": True}
    body, written = validated(posted, CreateBody), ReceivedBody()
    written.add({"body": json_bytes(posted) if body.wants_storing else b""})
    return body, written
