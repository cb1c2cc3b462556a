"""Embed the texts of one HTTP request, some at a time."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from mlx_server import protocol
from mlx_server.gateway.dialects.body_budget import SMALL_BYTES
from mlx_server.gateway.dialects.context import GatewayContext
from mlx_server.gateway.dialects.streaming import cancel_on_disconnect
from mlx_server.gateway.errors import BadRequest, ServerFault
from mlx_server.gateway.json_text import JsonResponse, json_bytes
from mlx_server.gateway.requests.model_requests import EmbeddingRequest
from mlx_server.gateway.requests.sendable import sendable

TEXTS_AT_ONCE = 128
"""Texts in one operation. A long list must not be repeated as a whole after a crash. In the engine, streams
go on between batches of these texts."""


MAX_NUMBERS = 2**22
"""Numbers in the vectors of one answer: 10,922 vectors of 384. Their JSON takes up to 90 MB."""


@dataclass(frozen=True)
class Embeddings:
    """The vectors of many texts, `dim` numbers each, in blocks of base64 float32 as the engine sends them."""

    blocks: tuple[str, ...]
    dim: int
    prompt_tokens: int
    load_s: float

    def rows(self, dimensions: int | None = None) -> Iterator[list[float]]:
        """Yield the vectors; with `dimensions` the first numbers of each, scaled to length 1 again.

        Raises BadRequest if the vectors have fewer dimensions.
        """
        if dimensions is not None and dimensions > self.dim > 0:
            message = f"dimensions: this model's vectors have {self.dim}, not {dimensions}"
            raise BadRequest("invalid_request", message, dimensions=self.dim)
        for block in self.blocks:
            for row in protocol.unpack_vectors(block, self.dim):
                is_cut = dimensions is not None and dimensions < self.dim
                yield _unit_vector(row[:dimensions]) if is_cut else row

    def json_rows(self, dimensions: int | None = None) -> list[msgspec.Raw]:
        """Return each of `rows` as JSON, which takes half the memory of the numbers. Raises BadRequest."""
        return [msgspec.Raw(json_bytes(row)) for row in self.rows(dimensions)]

    async def response(self, answer: Callable[[], dict[str, Any]]) -> Response:
        """Return the response whose JSON `answer` returns.

        It is made in a thread if there are many vectors: 4 million numbers take a second.
        """
        if sum(map(len, self.blocks)) <= SMALL_BYTES:
            return JsonResponse(answer())
        content = await asyncio.to_thread(lambda: json_bytes(answer()))
        return Response(content, media_type=JsonResponse.media_type)


async def embed(
    context: GatewayContext, request: EmbeddingRequest, http: Request, dialect: str
) -> Embeddings:
    """Return the vectors of all texts of `request`. Raises GatewayError, ClientDisconnected.

    The memory of the vectors bounds the number of texts. A vector with NaN or Infinity, as damaged weights
    make it, is a fault of the model: JSON cannot carry it.
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
        check_size(len(request.texts), embedded.dim)
        blocks.append(embedded.vectors)
        dim, tokens, load_s = embedded.dim, tokens + embedded.prompt_tokens, load_s + embedded.load_s
    return Embeddings(tuple(blocks), dim, tokens, load_s)


def check_size(texts: int, dim: int) -> None:
    """Raise BadRequest if this number of vectors with `dim` numbers is too large for one answer."""
    if texts * dim > MAX_NUMBERS:
        most = MAX_NUMBERS // dim
        message = f"input: the vectors of {texts} texts are too large for one answer; send {most} at most"
        raise BadRequest("invalid_request", message, inputs=texts, most=most)


def _unit_vector(row: list[float]) -> list[float]:
    length = math.hypot(*row)
    return [value / length for value in row] if length else row
