"""Embed the texts of one HTTP request, in groups of TEXTS_AT_ONCE."""

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
"""How many texts one engine operation embeds. If the engine crashes, only the texts of one operation are
embedded again. Between batches of these texts, the engine continues the streams."""


MAX_NUMBERS = 2**22
"""How many numbers the vectors of one answer may have together, such as 10,922 vectors of 384 numbers. Their
JSON takes up to 90 MB."""


@dataclass(frozen=True)
class Embeddings:
    """The vectors of many texts, with `dim` numbers each, in the engine's format: blocks of base64 float32.
    `load_s` is how many seconds the model took to load.
    """

    blocks: tuple[str, ...]
    dim: int
    prompt_tokens: int
    load_s: float

    def rows(self, dimensions: int | None = None) -> Iterator[list[float]]:
        """Yield the vectors. If `dimensions` is given, yield only that many numbers of each vector, scaled to
        unit norm again. Raises BadRequest if the vectors have fewer than `dimensions` numbers.
        """
        if dimensions is not None and dimensions > self.dim > 0:
            message = f"dimensions: this model's vectors have {self.dim}, not {dimensions}"
            raise BadRequest("invalid_request", message, dimensions=self.dim)
        for block in self.blocks:
            for row in protocol.unpack_vectors(block, self.dim):
                is_cut = dimensions is not None and dimensions < self.dim
                yield _unit_vector(row[:dimensions]) if is_cut else row

    def json_rows(self, dimensions: int | None = None) -> list[msgspec.Raw]:
        """Return each vector as JSON, which takes half the memory of the numbers. If `dimensions` is given, a
        vector has only its first `dimensions` numbers, scaled to unit norm again. Raises BadRequest if the
        vectors have fewer than `dimensions` numbers.
        """
        return [msgspec.Raw(json_bytes(row)) for row in self.rows(dimensions)]

    async def response(self, answer: Callable[[], dict[str, Any]]) -> Response:
        """Return a response whose JSON body is what `answer` returns. If there are many vectors, the JSON is
        written in a thread, because 4 million numbers take a second.
        """
        if sum(map(len, self.blocks)) <= SMALL_BYTES:
            return JsonResponse(answer())
        content = await asyncio.to_thread(lambda: json_bytes(answer()))
        return Response(content, media_type=JsonResponse.media_type)


async def embed(
    context: GatewayContext, request: EmbeddingRequest, http: Request, dialect: str
) -> Embeddings:
    """Return the vectors of all texts of `request`. `dialect` names the client's API in metrics, events and
    traces.

    Raises ClientDisconnected if the client leaves, and GatewayError if the engine cannot embed a text or the
    vectors would have more than MAX_NUMBERS numbers together. Raises ServerFault, a subclass of GatewayError,
    if a vector has NaN or Infinity, which damaged weights produce and JSON cannot express.
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
    """Raise BadRequest if `texts` vectors with `dim` numbers each are too large for one answer."""
    if texts * dim > MAX_NUMBERS:
        most = MAX_NUMBERS // dim
        message = f"input: the vectors of {texts} texts are too large for one answer; send {most} at most"
        raise BadRequest("invalid_request", message, inputs=texts, most=most)


def _unit_vector(row: list[float]) -> list[float]:
    length = math.hypot(*row)
    return [value / length for value in row] if length else row
