"""What every dialect's handlers share: the parts of the gateway, handed to them explicitly."""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable
from dataclasses import dataclass

from starlette.requests import Request

from mlx_server import protocol
from mlx_server.gateway.dialects.streaming import client_of, unless_left
from mlx_server.gateway.errors import BadRequest
from mlx_server.gateway.installed_models import InstalledModels
from mlx_server.gateway.requests.dispatcher import Dispatcher
from mlx_server.gateway.requests.model_requests import EmbeddingRequest, ModelRequest
from mlx_server.gateway.requests.ticket import Ticket
from vestal.config import Config
from vestal.supervision import Clock

TEXTS_AT_ONCE = 32
"""Texts in one operation: a long list must not keep the engine from its streams, nor be repeated whole."""


@dataclass(frozen=True)
class GatewayContext:
    """The gateway's parts that request handlers use."""

    config: Config
    clock: Clock
    dispatcher: Dispatcher
    models: InstalledModels
    draw_seed: Callable[[], int] = lambda: secrets.randbits(32)

    @property
    def max_body_bytes(self) -> int:
        return self.config.mlx.max_body_bytes

    def submit(self, work: ModelRequest, http: Request, dialect: str, user: str | None = None) -> Ticket:
        return self.dispatcher.submit(work, client_of(http, user), dialect)


@dataclass(frozen=True)
class Vectors:
    """Embeddings of many texts: base64 float32 blocks of rows, and the sums over them."""

    blocks: tuple[str, ...]
    dim: int
    prompt_tokens: int
    load_s: float

    def rows(self, dimensions: int | None = None) -> list[list[float]]:
        """The vectors, or the first `dimensions` of each, of length one again. Raises BadRequest."""
        rows = [row for block in self.blocks for row in protocol.unpack_vectors(block, self.dim)]
        if dimensions is None or dimensions == self.dim:
            return rows
        if dimensions > self.dim:
            message = f"dimensions: this model's vectors have {self.dim}, not {dimensions}"
            raise BadRequest("invalid_request", message, dimensions=self.dim)
        return [_unit(row[:dimensions]) for row in rows]


def _unit(row: list[float]) -> list[float]:
    length = math.hypot(*row)
    return [value / length for value in row] if length else row


async def embed(pieces: GatewayContext, work: EmbeddingRequest, http: Request, dialect: str) -> Vectors:
    """Embeds all texts, some at a time. Raises GatewayError, ClientDisconnected."""
    blocks: list[str] = []
    dim = tokens = 0
    load_s = 0.0
    for start in range(0, len(work.texts), TEXTS_AT_ONCE):
        texts = work.texts[start : start + TEXTS_AT_ONCE]
        part = EmbeddingRequest(work.model, texts, work.truncate, work.keep_alive_s)
        ticket = pieces.submit(part, http, dialect)
        answer = await unless_left(http, ticket, ticket.last())
        assert isinstance(answer, protocol.Embedding)
        blocks.append(answer.vectors)
        dim, tokens, load_s = answer.dim, tokens + answer.prompt_tokens, load_s + answer.load_s
    return Vectors(tuple(blocks), dim, tokens, load_s)
