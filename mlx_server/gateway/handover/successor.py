"""Read answers that another gateway continues for this one, and forward requests to that gateway."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from typing import TYPE_CHECKING

from mlx_server.gateway.kept_answers.rendering import BrokenOff, Message, Receive, Send

if TYPE_CHECKING:
    import aiohttp

CONNECT_S = 120.0
"""How long a request waits until the other gateway accepts its connection. That gateway starts to accept when
this one has handed over; until then, the connection waits in the kernel's queue."""

HOP_BY_HOP = frozenset(
    {b"connection", b"keep-alive", b"transfer-encoding", b"te", b"trailer", b"upgrade", b"proxy-connection"}
)
"""Headers that apply to a single connection (RFC 9110, section 7.6.1), and are not forwarded."""


KEY_HEADERS = frozenset({"authorization", "x-api-key"})


RETRY_S = 0.1
MAX_RETRY_S = 60.0
"""How long to wait for a further gateway if the other gateway dies before it has sent anything."""
ACCEPTED_AFTER_S = 1.0
"""If an attempt takes longer than this, a gateway had accepted the connection, because a refused connection
fails at once."""


class Successor:
    """An HTTP client of the other gateway, which continues this gateway's answers and serves its requests.

    `base_url` is the other gateway's address, such as http://127.0.0.1:11435. `api_key` is the key to
    send to it; None for no key. `connect_s` is how many seconds a request waits until the other
    gateway accepts the connection.
    """

    def __init__(self, base_url: str, api_key: str | None = None, connect_s: float = CONNECT_S) -> None:
        self.base_url = base_url
        self._api_key = api_key
        self._connect_s = connect_s
        self._session: aiohttp.ClientSession | None = None
        self._is_closed = False

    @property
    def key_headers(self) -> dict[str, str]:
        """Return the header with the API key; an empty dict if there is no key."""
        return {} if self._api_key is None else {"Authorization": f"Bearer {self._api_key}"}

    def client(self) -> aiohttp.ClientSession:
        """Return the HTTP session for all requests to the other gateway. Only the time to connect is limited,
        not the time until a response is complete. Raises BrokenOff after `close`.
        """
        import aiohttp  # at the first use: it takes several MB of memory, and most gateways never hand over

        if self._is_closed:
            raise BrokenOff("this gateway is stopping")
        if self._session is None:
            timeout = aiohttp.ClientTimeout(total=None, sock_connect=self._connect_s)
            connector = aiohttp.TCPConnector(limit=0)
            self._session = aiohttp.ClientSession(timeout=timeout, connector=connector, auto_decompress=False)
        return self._session

    async def copy_answer(self, answer_id: str, first_frame: int, send: Send, *, has_started: bool) -> None:
        """Read an answer from the other gateway, from frame number `first_frame` to its end, and send it to
        the client. With `has_started`, the client has received the status and the headers already; otherwise
        they are sent too, even if they report an error.

        Raises BrokenOff if the answer breaks off, or if it is gone and `has_started` is True. If the
        connection to the other gateway fails, raises one of the errors whose types `connection_failures()`
        returns.
        """
        url = f"{self.base_url}/v1/streams/{answer_id}?from={first_frame}"
        async with self.client().get(url, headers=self.key_headers) as answer:
            if has_started and answer.status != 200:
                raise BrokenOff(f"{answer_id}: the answer is gone (status {answer.status})")
            await _copy(answer, send, has_started=has_started)

    async def copy_answer_from_next(
        self, answer_id: str, first_frame: int, send: Send, *, has_started: bool
    ) -> None:
        """Read an answer from the other gateway, from frame number `first_frame` to its end, and send it to
        the client. With `has_started`, the client has received the status and the headers already; otherwise
        they are sent too, even if they report an error. If the other gateway dies before it has sent
        anything, read the answer from the next gateway that listens at the same address.

        Raises BrokenOff if the answer breaks off, or if no next gateway is found within MAX_RETRY_S seconds.
        With `has_started`, also raises BrokenOff if the gateway no longer has the answer.
        """
        has_sent = False

        async def sending(message: Message) -> None:
            nonlocal has_sent
            has_sent = True
            await send(message)

        deadline_s = time.monotonic() + MAX_RETRY_S
        while True:
            began_s = time.monotonic()
            try:
                await self.copy_answer(answer_id, first_frame, sending, has_started=has_started)
                return
            except connection_failures() as error:
                now_s = time.monotonic()
                # The retry time counts from this failure, because the answer may have taken minutes before
                # it.
                if now_s - began_s > ACCEPTED_AFTER_S:
                    deadline_s = now_s + MAX_RETRY_S
                if has_sent or now_s > deadline_s:
                    raise BrokenOff(f"{answer_id}: {type(error).__name__}: {error}") from error
            await asyncio.sleep(RETRY_S)

    async def forward(self, scope: Message, receive: Receive, send: Send, *, own_key: bool = False) -> None:
        """Forward a whole HTTP request, and send its response to the client. With `own_key`, authenticate
        with this gateway's key instead of the client's.

        Raises BrokenOff if the response breaks off. If the connection to the other gateway fails, raises one
        of the errors whose types `connection_failures()` returns.
        """
        from yarl import URL

        query = scope["query_string"].decode("latin-1")
        raw_path = scope.get("raw_path", scope["path"].encode()).decode("latin-1")
        # A target such as `@example.org/`, which HTTP does not allow, would name another host in the URL.
        path = raw_path if raw_path.startswith("/") else f"/{raw_path}"
        url = URL(self.base_url + path + (f"?{query}" if query else ""), encoded=True)
        headers = [
            (name.decode("latin-1"), value.decode("latin-1")) for name, value in _forwarded(scope["headers"])
        ]
        if own_key:
            headers = [pair for pair in headers if pair[0].lower() not in KEY_HEADERS]
            headers += self.key_headers.items()
        body = _body(receive) if _has_body(scope["headers"]) else None
        async with self.client().request(
            scope["method"], url, headers=headers, data=body, allow_redirects=False
        ) as answer:
            await _copy(answer, send, has_started=False)

    async def close(self) -> None:
        """Close all connections to the gateway at `base_url`. Later calls that send requests to it raise
        BrokenOff.
        """
        self._is_closed = True
        if self._session is not None:
            await self._session.close()


async def _copy(answer: aiohttp.ClientResponse, send: Send, *, has_started: bool) -> None:
    """Send the status, headers and body of `answer` to the client. With `has_started`, send only the body.
    The client's connection is closed afterwards, so that the client opens a new one. Raises BrokenOff if the
    body breaks off.
    """
    if not has_started:
        headers = [*_forwarded(answer.raw_headers), (b"connection", b"close")]
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    try:
        async for chunk in answer.content.iter_any():
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
    except connection_failures() as error:
        raise BrokenOff(str(error)) from error
    await send({"type": "http.response.body", "body": b"", "more_body": False})


def connection_failures() -> tuple[type[Exception], ...]:
    """Return the types of the errors that occur if another gateway breaks off a connection or does not accept
    it.
    """
    import aiohttp  # see `client`

    return (OSError, aiohttp.ClientError)


def _forwarded(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    return [(name, value) for name, value in headers if name.lower() not in HOP_BY_HOP]


def _has_body(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    return any(name in (b"content-length", b"transfer-encoding") for name, _ in headers)


async def _body(receive: Receive) -> AsyncIterator[bytes]:
    has_more = True
    while has_more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ConnectionResetError("the client has hung up")
        has_more = message.get("more_body", False)
        if part := message.get("body", b""):
            yield part
