"""ASGI middleware: once this gateway has handed over, requests on its connections go to its successor."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

from mlx_server.gateway.handover.successor import Successor


class HandedOver:
    """Whether this gateway has handed over, and to which one."""

    successor: Successor | None = None


class ForwardToSuccessor:
    """Forwards every request from the moment on at which `state.successor` is set."""

    def __init__(self, app: ASGIApp, state: HandedOver) -> None:
        self._app = app
        self._state = state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        successor = self._state.successor
        if scope["type"] != "http" or successor is None:
            await self._app(scope, receive, send)
            return
        await successor.forward(scope, receive, send)
