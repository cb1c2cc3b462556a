"""The HTTP client for one peer, which offers answers to the peer, reads answers from it, and asks for its
health.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from mlx_server.gateway.handover.successor import Successor
from mlx_server.gateway.kept_answers.rendering import BrokenOff, Message, Receive, Send
from mlx_server.gateway.peers.mirrored import MirrorBatch, MirrorReply
from mlx_server.gateway.peers.passed_on import DIGEST

if TYPE_CHECKING:
    import aiohttp

ASK_S = 0.5
"""How long a peer may take to answer a request that it can answer from memory."""
CONNECT_S = 1.0
OFFER_S = 4.0
"""How long a peer may take to accept or refuse an answer, in addition to the time for the body."""
BODY_BYTES_PER_S = 10_000_000
MAX_JSON_BYTES, MAX_REFUSAL_BYTES = 64 * 1024, 4096
Json = TypeVar("Json")


class PeerLost(BrokenOff):
    """The peer does not send the rest of an answer. `has_started` is True if a part of the response was sent
    to the client.
    """

    def __init__(self, message: str, *, has_started: bool) -> None:
        super().__init__(message)
        self.has_started = has_started


class Peer:
    """An HTTP client for the gateway at `url` on another machine. `key` is the peer key, which both gateways
    must have. `readers` counts the clients that read the peer's answers through this gateway.
    """

    def __init__(self, url: str, key: str) -> None:
        self.url = url
        self.readers = 0
        self._gateway = Successor(url, key, CONNECT_S)

    async def close(self) -> None:
        """Close all connections to the peer."""
        await self._gateway.close()

    async def health(self) -> dict[str, Any] | None:
        """Return the body of the peer's GET /health, whatever its status; None if no valid body comes in
        time.
        """
        with contextlib.suppress(*_failures()):
            async with asyncio.timeout(ASK_S), self._request("GET", "/health") as answer:
                return await _json_in(answer, dict[str, Any])
        return None

    async def has(self, answer_id: str) -> bool:
        """Return whether the peer has the answer with this id. Return False if the peer does not reply in
        time.
        """
        with contextlib.suppress(*_failures()):
            async with asyncio.timeout(ASK_S), self._request("HEAD", f"/v1/streams/{answer_id}") as answer:
                return answer.status == 200
        return False

    async def cancel(self, answer_id: str) -> bool:
        """Cancel an answer on the peer. Return False if the peer does not have it, or does not confirm in
        time.
        """
        with contextlib.suppress(*_failures()):
            async with asyncio.timeout(ASK_S), self._request("DELETE", f"/v1/streams/{answer_id}") as answer:
                return answer.status == 200
        return False

    async def mirror(self, batch: MirrorBatch) -> dict[str, int]:
        """Send the peer a batch of records to mirror. Return an entry for each answer of which the peer wants
        more records: the answer's id, and the offset of the first byte that the peer wants. Return an empty
        dict if it wants none, or if it cannot be reached or sends no valid reply in time.
        """
        headers = {"Content-Type": "application/octet-stream"}
        data = msgspec.msgpack.encode(batch)
        with contextlib.suppress(*_failures()):
            async with (
                asyncio.timeout(ASK_S + len(data) / BODY_BYTES_PER_S),
                self._request("POST", "/v1/streams/mirror", headers=headers, data=data) as answer,
            ):
                return (await _json_in(answer, MirrorReply)).want
        return {}

    async def records(self, answer_id: str, offset: int) -> bytes | None:
        """Return the records of an answer from byte `offset` on; None if the peer does not send them in
        time.
        """
        with contextlib.suppress(*_failures()):
            path = f"/v1/streams/{answer_id}/records?from={offset}"
            async with asyncio.timeout(OFFER_S), self._request("GET", path) as answer:
                return await answer.read() if answer.status == 200 else None
        return None

    async def offer(self, answer_id: str, records: bytes, model_digest: str) -> str:
        """Ask the peer to continue the answer with these records. Return an empty text if the peer accepts
        it, else why not. `model_digest` identifies the model that generated the beginning of the answer; it
        is empty if nothing was generated or the model is unknown.
        """
        headers = {"Content-Type": "application/octet-stream"}
        if model_digest:
            headers[DIGEST] = model_digest
        try:
            async with (
                asyncio.timeout(OFFER_S + len(records) / BODY_BYTES_PER_S),
                self._request("PUT", f"/v1/streams/{answer_id}", headers=headers, data=records) as answer,
            ):
                if answer.status in (200, 201):
                    return ""
                text = (await answer.content.read(MAX_REFUSAL_BYTES)).decode("utf-8", "replace")
                return f"status {answer.status}: {text[:300]}"
        except _failures() as error:
            return f"{type(error).__name__}: {error}"

    async def copy_answer(
        self, answer_id: str, first_frame: int, send: Send, *, has_started: bool, is_dead: Awaitable[None]
    ) -> None:
        """Send the client an answer of the peer, from frame number `first_frame` to its end. With
        `has_started`, the client has the status and the headers already, and is sent only the frames. Raises
        PeerLost if the peer breaks off, or once `is_dead` is done, which means that the peer counts as dead.
        """
        self.readers += 1
        sending = _Sending(send, has_started)
        copying = asyncio.ensure_future(
            self._gateway.copy_answer(answer_id, first_frame, sending, has_started=has_started)
        )
        watching = asyncio.ensure_future(is_dead)
        try:
            await asyncio.wait({copying, watching}, return_when=asyncio.FIRST_COMPLETED)
            if not copying.done():
                raise PeerLost("it does not answer any more", has_started=sending.has_started)
            await copying
        except PeerLost:
            raise
        except _failures() as error:
            raise PeerLost(f"{type(error).__name__}: {error}", has_started=sending.has_started) from error
        finally:
            self.readers -= 1
            for task in (copying, watching):
                task.cancel()
            await asyncio.gather(copying, watching, return_exceptions=True)

    async def forward(self, scope: Message, receive: Receive, send: Send) -> None:
        """Forward a whole HTTP request to the peer, and send its response to the client. Raises PeerLost if
        the peer breaks off or cannot be reached.
        """
        sending = _Sending(send, False)
        try:
            await self._gateway.forward(scope, receive, sending, own_key=True)
        except _failures() as error:
            raise PeerLost(f"{type(error).__name__}: {error}", has_started=sending.has_started) from error

    def _request(self, method: str, path: str, **more: Any) -> aiohttp.client._RequestContextManager:
        headers = self._gateway.key_headers | more.pop("headers", {})
        return self._gateway.client().request(
            method, self.url + path, headers=headers, allow_redirects=False, **more
        )


class _Sending:
    """An ASGI `send` function that sets `has_started` to True once it sends anything. The initial
    `has_started` says whether a part of the response was sent before.
    """

    def __init__(self, send: Callable[[Message], Awaitable[None]], has_started: bool) -> None:
        self.has_started = has_started
        self._send = send

    async def __call__(self, message: Message) -> None:
        self.has_started = True
        await self._send(message)


async def _json_in(answer: aiohttp.ClientResponse, kind: type[Json]) -> Json:
    """Return the body of a peer's response, decoded from JSON as the type `kind`. Raises ValueError if the
    body is longer than MAX_JSON_BYTES, no JSON, JSON of another type, or nested too deeply.
    """
    body = b""
    while len(body) <= MAX_JSON_BYTES and (part := await answer.content.read(MAX_JSON_BYTES)):
        body += part
    if len(body) > MAX_JSON_BYTES:
        raise ValueError(f"the body is longer than {MAX_JSON_BYTES} bytes")
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise ValueError(str(error)) from error


def _failures() -> tuple[type[Exception], ...]:
    """Return the types of the errors that occur if a peer is unreachable, slow, or not a gateway."""
    import aiohttp  # at the first use: it takes several MB of memory, and most gateways have no peers

    return (OSError, TimeoutError, ValueError, aiohttp.ClientError, BrokenOff)
