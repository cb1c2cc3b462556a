"""Score the documents of one HTTP request, in groups of DOCUMENTS_AT_ONCE."""

from __future__ import annotations

from dataclasses import replace

from starlette.requests import Request

from mlx_server import protocol
from mlx_server.gateway.dialects.context import GatewayContext
from mlx_server.gateway.dialects.rerank import DIALECT
from mlx_server.gateway.dialects.rerank.render import Ranking
from mlx_server.gateway.dialects.streaming import cancel_on_disconnect
from mlx_server.gateway.requests.model_requests import RerankRequest
from mlx_server.gateway.requests.sendable import sendable

DOCUMENTS_AT_ONCE = 32
"""How many documents one engine operation scores. Without this limit, a long list would delay the engine's
streams, and would be scored again as a whole after a crash."""


async def rank(context: GatewayContext, request: RerankRequest, http: Request) -> Ranking:
    """Return the scores of all documents of `request`, which the engine computes group by group. Raises
    GatewayError if a group is refused or fails, and ClientDisconnected if the client leaves.

    Documents of similar length share a group, because the engine pads the shorter documents of a group.
    """
    order = sorted(range(len(request.documents)), key=lambda index: len(request.documents[index]))
    scores, tokens, request_id = [0.0] * len(order), 0, ""
    for start in range(0, len(order), DOCUMENTS_AT_ONCE):
        indices = order[start : start + DOCUMENTS_AT_ONCE]
        some = replace(request, documents=tuple(request.documents[index] for index in indices))
        ticket = context.submit(sendable(some), http, DIALECT)
        request_id = request_id or ticket.public_id
        reranked = await cancel_on_disconnect(http, ticket, ticket.last())
        assert isinstance(reranked, protocol.Reranked)
        for index, score in zip(indices, reranked.scores, strict=True):
            scores[index] = score
        tokens += reranked.prompt_tokens
    return Ranking(request_id, tuple(scores), tokens)
