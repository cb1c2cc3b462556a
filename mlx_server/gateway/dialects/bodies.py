"""Reads request bodies: bounded in size, as JSON, and with one sentence about the first mistake.

A body is read as JSON whatever its Content-Type says: Ollama's own client and `curl -d` send JSON as
`application/x-www-form-urlencoded`. A browser page that does the same to avoid the preflight request is
refused for its Origin.
"""

from __future__ import annotations

from typing import Annotated, Any, NoReturn, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from starlette.requests import ClientDisconnect, Request

from mlx_server.gateway.dialects.validation import first_mistake
from mlx_server.gateway.errors import BadRequest, TooLarge
from mlx_server.gateway.requests.ticket import ClientDisconnected
from vestal.web.http_error import HttpError
from vestal.web.json_body import parse_object

DISCARD_FACTOR = 4
"""A body over the limit is read and discarded up to this many times the limit: a client that is still sending
would see a reset connection instead of our answer."""


class Body(BaseModel):
    """Base class of all bodies. It refuses wrong types, and ignores unknown fields: clients send many."""

    model_config = ConfigDict(strict=True, extra="ignore", frozen=True, allow_inf_nan=False)


def _as_integer(value: Any) -> Any:
    """Return 64 for 64.0: JSON has one kind of number, and some clients write whole numbers so."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


WholeNumber = Annotated[int, BeforeValidator(_as_integer)]
T = TypeVar("T")
ListOf = Annotated[list[T], Field(fail_fast=True)]
"""A list that is validated up to its first wrong item: to report on a million of them took 30 s and 3 GB."""
BodyT = TypeVar("BodyT", bound=Body)


async def read_body(http: Request, model: type[BodyT], max_bytes: int) -> BodyT:
    """Return the body as `model`. Raises BadRequest, TooLarge, ClientDisconnected."""
    return validated(parsed_object(await _read_bytes(http, max_bytes)), model)


async def _read_bytes(http: Request, max_bytes: int) -> bytes:
    chunks: list[bytes] = []
    size_bytes = 0
    try:
        async for chunk in http.stream():
            size_bytes += len(chunk)
            if size_bytes <= max_bytes:
                chunks.append(chunk)
            elif size_bytes > DISCARD_FACTOR * max_bytes:
                break
    except ClientDisconnect as disconnect:
        raise ClientDisconnected from disconnect
    if size_bytes > max_bytes:
        raise TooLarge(
            "too_large",
            f"The body is over the limit of {max_bytes} bytes; send less, or raise mlx.max_body_bytes.",
            max_body_bytes=max_bytes,
        )
    return b"".join(chunks)


def parsed_object(raw: bytes) -> dict[str, Any]:
    """Return the JSON object in `raw`. Raises BadRequest."""
    try:
        return parse_object(raw)
    except HttpError as error:
        raise BadRequest(error.code, error.message) from error


def validated(data: dict[str, Any], model: type[BodyT]) -> BodyT:
    """Return `data` as `model`. Raises BadRequest that names the first wrong field."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise BadRequest("invalid_request", first_mistake(error)) from error


def not_supported(field: str, message: str) -> NoReturn:
    """Refuse a field that the API has and this server does not support. Raises BadRequest."""
    raise BadRequest("not_supported", f"{field}: {message}", field=field)
