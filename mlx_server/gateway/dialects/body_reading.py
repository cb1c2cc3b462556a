"""Receive the bytes of request bodies, with limits on a body's size, on its time, and on the memory of all
bodies together.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from starlette.requests import Request

from mlx_server.gateway.dialects.body_budget import BodyShare, share_of
from mlx_server.gateway.errors import TooLarge
from mlx_server.gateway.kept_answers.kept_answer import kept_answer_of
from mlx_server.gateway.requests.ticket import ClientDisconnected
from vestal.web.connections import BODY_MIN_BYTES, BODY_WINDOW_S, BodyProgress
from vestal.web.guard import CLOSING
from vestal.web.http_error import HttpError

DISCARD_FACTOR = 4
"""A body over the limit is read and discarded up to this many times the limit. If reading stopped earlier, a
client that is still sending would see a reset connection instead of the answer."""
POLL_S = 2.0
PATIENCE_S = 5.0
WANTED_BYTES_PER_S = 256 * 1024
"""A large body that arrives more slowly than this is refused while other requests wait for memory."""


async def receive(http: Request, max_bytes: int) -> list[bytes]:
    """Return the body in the parts in which it arrived.

    Raises TooLarge if the body is over `max_bytes`, ClientDisconnected if the client is gone, HttpError
    (`request_timeout`) if the body arrives too slowly, and Unavailable if no memory for it becomes free in
    time.
    """
    share = share_of(http)
    await share.cover(min(_declared_bytes(http), max_bytes))
    pace = _Pace(share)
    parts: list[bytes] = []
    size_bytes, has_more = 0, True
    while has_more and size_bytes <= DISCARD_FACTOR * max_bytes:
        part, has_more = await _next_part(http, pace, size_bytes)
        size_bytes += len(part)
        if size_bytes <= max_bytes:
            await share.cover(min(_next_power_of_two(size_bytes), max_bytes))
            parts.append(part)
    if size_bytes > max_bytes:
        raise _too_large(max_bytes, is_whole=not has_more)
    return parts


async def receive_stepwise(http: Request) -> AsyncIterator[bytes]:
    """Yield the parts of a body. The body has no size limit, because it is not held in memory as a whole.

    Raises ClientDisconnected if the client is gone, and HttpError if the body arrives too slowly.
    """
    pace = _Pace(share_of(http))
    size_bytes, has_more = 0, True
    while has_more:
        part, has_more = await _next_part(http, pace, size_bytes)
        size_bytes += len(part)
        yield part


async def _next_part(http: Request, pace: _Pace, size_bytes: int) -> tuple[bytes, bool]:
    """Return the next part of a body of which `size_bytes` have arrived, and whether more follows.

    Raises ClientDisconnected if the client is gone, and HttpError if the body arrives too slowly.
    """
    while True:
        try:
            async with asyncio.timeout(POLL_S):
                message = await http.receive()
        except TimeoutError:
            if not _has_arrived(http):
                pace.check(size_bytes)
            continue
        if message["type"] == "http.disconnect":
            raise ClientDisconnected
        part, has_more = message.get("body", b""), message.get("more_body", False)
        if has_more:  # checked here too: a body that trickles in never causes a TimeoutError
            pace.check(size_bytes + len(part))
        return part, has_more


def _has_arrived(http: Request) -> bool:
    """Return True if the client has sent the whole body or has disconnected. A call of `http.receive` that
    has not returned then does not wait for the client, so the client must not be blamed for being slow.

    Only for a request whose answer is stored can `http.receive` wait for something else: it holds back the
    last part of the body until it is decided whether another machine serves the request. For any other
    request, return False.
    """
    kept = kept_answer_of(http.scope)
    return kept is not None and kept.body.is_whole.is_set()


class _Pace:
    """Measures how fast one body arrives, in order to refuse a body that arrives too slowly. `share` is the
    body's share of the memory for all bodies: while it holds memory that other requests wait for, the body
    must arrive faster.
    """

    def __init__(self, share: BodyShare) -> None:
        self._share = share
        self._loop = asyncio.get_running_loop()
        self._started_at = self._loop.time()
        self._progress = BodyProgress(self._started_at)
        self._size_bytes = 0

    def check(self, size_bytes: int) -> None:
        """Raise HttpError if the body arrives too slowly. `size_bytes` is how much of it has arrived so
        far.
        """
        now = self._loop.time()
        self._progress.received(size_bytes - self._size_bytes, now)
        self._size_bytes = size_bytes
        if now > self._progress.deadline:
            raise _too_slow(f"Less than {BODY_MIN_BYTES} bytes of the body came within {BODY_WINDOW_S:g} s")
        age_s = now - self._started_at
        is_slow = age_s > PATIENCE_S and size_bytes < WANTED_BYTES_PER_S * age_s
        if is_slow and self._share.held_bytes and self._share.budget.is_wanted:
            raise _too_slow("The body comes slowly while other requests wait for the memory that it takes up")


def _too_slow(why: str) -> HttpError:
    return HttpError("request_timeout", f"{why}; send it again, faster.", headers=CLOSING)


def _too_large(max_bytes: int, *, is_whole: bool) -> TooLarge:
    message = f"The body is over the limit of {max_bytes} bytes; send less, or raise mlx.max_body_bytes."
    headers = None if is_whole else CLOSING
    return TooLarge("too_large", message, headers=headers, max_body_bytes=max_bytes)


def _declared_bytes(http: Request) -> int:
    """Return the Content-Length in bytes; 0 if the header is missing or not a number."""
    declared = http.headers.get("content-length", "")
    return int(declared) if declared.isdigit() and len(declared) < 19 else 0


def _next_power_of_two(number: int) -> int:
    return 1 << (number - 1).bit_length() if number else 0
