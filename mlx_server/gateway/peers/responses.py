"""ASGI middleware that forwards requests to /v1/responses/{id} to the peer that has this response."""

from __future__ import annotations

import re

from starlette.types import ASGIApp, Receive, Scope, Send

from mlx_server.gateway.kept_answers.keeper import AnswerKeeper
from mlx_server.gateway.peers.answers_elsewhere import lost_response
from mlx_server.gateway.peers.others import Peers
from mlx_server.gateway.peers.peer import PeerLost

_RESPONSE = re.compile(r"/v1/responses/resp_([A-Za-z0-9_-]{1,80})(/.*)?")


class ForwardToPeer:
    """Forwards each HTTP request about an OpenAI response (/v1/responses/{id}) to the peer to which the
    OpenAI response was passed on, if the peer still has it. Every other request is passed to `app`.

    `peers` knows which peer that is. If the request deletes or cancels the OpenAI response, `keeper` also
    deletes the records of it that this gateway has, so that it is never continued here.

    If the peer is lost before it has answered, the client gets an error with status 503 (`lost_response`). If
    it is lost later, the HTTP response stays incomplete, so that the server closes the client's connection.
    """

    def __init__(self, app: ASGIApp, peers: Peers, keeper: AnswerKeeper) -> None:
        self._app = app
        self._peers = peers
        self._keeper = keeper

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        match = _RESPONSE.fullmatch(scope["path"]) if scope["type"] == "http" else None
        peer = self._peers.where(match[1]) if match else None
        if match is None or peer is None or not await peer.has(match[1]):
            await self._app(scope, receive, send)
            return
        if scope["method"] == "DELETE" or match[2] == "/cancel":  # the response must not continue here either
            self._keeper.forget(match[1])
        try:
            await peer.forward(scope, receive, send)
        except PeerLost as lost:
            if not lost.has_started:
                await lost_response(scope["path"])(scope, receive, send)
