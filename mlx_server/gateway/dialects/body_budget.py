"""Limit the memory of all request bodies together: a large body waits for its share of the budget, or is
refused.

A body of up to SMALL_BYTES needs no share, so that large ones do not delay it; the limit on connections
bounds the memory of small bodies. A share is held until its request is answered, since the texts of a body
live as long as its request.
"""

from __future__ import annotations

import asyncio
from collections import deque

from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send

from mlx_server.gateway.errors import Unavailable

SMALL_BYTES = 64 * 1024
WAIT_S = 10.0
RETRY_S = 10.0
_SCOPE_KEY = "vestal.body_share"


class BodyBudget:
    """Shares `limit_bytes` of memory among the bodies of requests, in the order of their arrival. A share is
    at most `limit_bytes`, even for a larger body. A request that gets no share within `wait_s` seconds is
    refused (503). Only one large body at a time is parsed or translated: the code that does so must hold the
    lock `parsing`.
    """

    def __init__(self, limit_bytes: int, wait_s: float = WAIT_S) -> None:
        self.parsing = asyncio.Lock()
        self.limit_bytes = limit_bytes
        self._free_bytes = limit_bytes
        self._wait_s = wait_s
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @property
    def is_wanted(self) -> bool:
        """Return whether a request waits for its share of the memory for bodies."""
        return bool(self._waiting)

    async def take(self, share_bytes: int) -> None:
        """Wait until `share_bytes` of the budget are free, and take them; the caller must return them with
        `give_back`. `share_bytes` must be at most `limit_bytes`. Raises Unavailable if this share does not
        become free within `wait_s` seconds.
        """
        granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiter = (share_bytes, granted)
        self._waiting.append(waiter)
        self._grant()
        try:
            async with asyncio.timeout(self._wait_s):
                await granted
        except BaseException as error:
            if granted.done() and not granted.cancelled():
                self.give_back(share_bytes)  # the share was granted when the wait had just ended
            elif waiter in self._waiting:
                self._waiting.remove(waiter)
                self._grant()
            if isinstance(error, TimeoutError):
                raise self._refusal() from None
            raise

    def give_back(self, share_bytes: int) -> None:
        """Add `share_bytes` to the free memory, and grant shares to the requests that wait."""
        self._free_bytes += share_bytes
        self._grant()

    def _grant(self) -> None:
        while self._waiting and self._waiting[0][0] <= self._free_bytes:
            share_bytes, granted = self._waiting.popleft()
            if not granted.done():
                self._free_bytes -= share_bytes
                granted.set_result(None)

    def _refusal(self) -> Unavailable:
        message = (
            f"The large bodies of other requests fill the {self.limit_bytes} bytes that all may take at once "
            "(mlx.body_budget_bytes); try again later."
        )
        return Unavailable("overloaded", message, retry_after_s=RETRY_S)


class BodyShare:
    """The part of the budget that one request holds; `held_bytes` is its size."""

    def __init__(self, budget: BodyBudget) -> None:
        self.budget = budget
        self.held_bytes = 0

    async def cover(self, body_bytes: int) -> None:
        """Extend this request's share of the memory for bodies, so that it covers a body of `body_bytes`.
        Raises Unavailable if the memory does not become free in time.
        """
        wanted_bytes = min(body_bytes, self.budget.limit_bytes)
        if body_bytes > SMALL_BYTES and wanted_bytes > self.held_bytes:
            await self.budget.take(wanted_bytes - self.held_bytes)
            self.held_bytes = wanted_bytes

    def passed_on(self) -> BodyShare:
        """Move the held bytes to a new share, and return the new share. Work that continues after the
        response needs the new share, because this one is given back when the response has been sent.
        """
        other = BodyShare(self.budget)
        other.held_bytes, self.held_bytes = self.held_bytes, 0
        return other

    def give_back(self) -> None:
        """Return the held bytes to the budget."""
        if self.held_bytes:
            self.budget.give_back(self.held_bytes)
            self.held_bytes = 0


class ShareBodies:
    """ASGI middleware that gives each HTTP request or WebSocket a share of `budget`, the memory that all
    request bodies together may take, and returns the share at the end.
    """

    def __init__(self, app: ASGIApp, budget: BodyBudget) -> None:
        self._app = app
        self._budget = budget

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        share = scope[_SCOPE_KEY] = BodyShare(self._budget)
        try:
            await self._app(scope, receive, send)
        finally:
            share.give_back()


def share_of(http: HTTPConnection) -> BodyShare:
    """Return the share of the body budget that a request holds."""
    share = http.scope[_SCOPE_KEY]
    assert isinstance(share, BodyShare)
    return share
