"""ASGI middleware that forwards requests to the successor once this gateway has handed over."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mlx_server.gateway.dialects.error_envelopes import error_response
from mlx_server.gateway.errors import Unavailable
from mlx_server.gateway.handover.successor import Successor, connection_failures
from mlx_server.gateway.kept_answers.middleware import LOST
from mlx_server.gateway.kept_answers.rendering import BrokenOff

RETRY_AFTER_S = 1


NOT_FORWARDED = frozenset({"/requests/events"})
"""Paths of endless streams, which would keep this gateway from exiting if they were forwarded. This gateway
refuses them, so that the clients connect to the successor."""


class HandedOver:
    """Holds the gateway to which this one has handed over (`successor`); None before that."""

    successor: Successor | None = None


class ForwardToSuccessor:
    """Forwards HTTP requests to the gateway `state.successor` once it is set. Until then, and for the paths
    of endless streams (NOT_FORWARDED), this gateway's own `app` answers.
    """

    def __init__(self, app: ASGIApp, state: HandedOver) -> None:
        self._app = app
        self._state = state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        successor = self._state.successor
        if scope["type"] != "http" or successor is None or scope["path"] in NOT_FORWARDED:
            await self._app(scope, receive, send)
            return
        has_started = False

        async def sending(message: Message) -> None:
            nonlocal has_started
            has_started = True
            await send(message)

        lost: tuple[type[Exception], ...] = (BrokenOff, *connection_failures())
        try:
            await successor.forward(scope, receive, sending)
        except lost:
            if has_started:  # the response stays incomplete, so the server closes the connection
                return
            error = Unavailable("engine_unavailable", LOST, retry_after_s=RETRY_AFTER_S)
            await error_response(error, scope["path"])(scope, receive, send)
