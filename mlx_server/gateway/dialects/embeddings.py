"""Embeds the texts of one HTTP request, some at a time."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from starlette.requests import Request

from mlx_server import protocol
from mlx_server.gateway.dialects.context import GatewayContext
from mlx_server.gateway.dialects.streaming import cancel_on_disconnect
from mlx_server.gateway.errors import BadRequest, ServerFault
from mlx_server.gateway.requests.model_requests import EmbeddingRequest
from mlx_server.gateway.requests.sendable import sendable

TEXTS_AT_ONCE = 32
"""Texts in one operation. A long list must not keep the engine from its streams for long, nor be repeated as
a whole after a crash."""


@dataclass(frozen=True)
class Embeddings:
    """The vectors of many texts, `dim` numbers each, in blocks of base64 float32 as the engine sends them."""

    blocks: tuple[str, ...]
    dim: int
    prompt_tokens: int
    load_s: float

    def rows(self, dimensions: int | None = None) -> list[list[float]]:
        """Return the vectors; with `dimensions` the first numbers of each, scaled to length 1 again.

        Raises BadRequest where the vectors have fewer dimensions.
        """
        rows = [row for block in self.blocks for row in protocol.unpack_vectors(block, self.dim)]
        if dimensions is None or dimensions == self.dim:
            return rows
        if dimensions > self.dim:
            message = f"dimensions: this model's vectors have {self.dim}, not {dimensions}"
            raise BadRequest("invalid_request", message, dimensions=self.dim)
        return [_unit_vector(row[:dimensions]) for row in rows]


async def embed(
    context: GatewayContext, request: EmbeddingRequest, http: Request, dialect: str
) -> Embeddings:
    """Return the vectors of all texts of `request`. Raises GatewayError, ClientDisconnected.

    A vector with NaN or Infinity, as damaged weights make it, is a fault of the model: JSON cannot carry it.
    """
    blocks: list[str] = []
    dim = tokens = 0
    load_s = 0.0
    for start in range(0, len(request.texts), TEXTS_AT_ONCE):
        some = replace(request, texts=request.texts[start : start + TEXTS_AT_ONCE])
        ticket = context.submit(sendable(some), http, dialect)
        embedded = await cancel_on_disconnect(http, ticket, ticket.last())
        assert isinstance(embedded, protocol.Embedding)
        if not protocol.are_finite(embedded.vectors):
            message = f"Model {request.model!r} made a vector with NaN or Infinity; its files may be damaged."
            raise ServerFault("model_load_failed", message)
        blocks.append(embedded.vectors)
        dim, tokens, load_s = embedded.dim, tokens + embedded.prompt_tokens, load_s + embedded.load_s
    return Embeddings(tuple(blocks), dim, tokens, load_s)


def _unit_vector(row: list[float]) -> list[float]:
    length = math.hypot(*row)
    return [value / length for value in row] if length else row
