"""Read request bodies: bounded in size, as JSON, and with one sentence about the first mistake.

A body is read as JSON for any Content-Type: Ollama's own client and `curl -d` send JSON as
`application/x-www-form-urlencoded`. A browser page that does the same to avoid the preflight request is
refused for its Origin.
"""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, NoReturn, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from starlette.requests import Request

from mlx_server.gateway.dialects import body_reading
from mlx_server.gateway.dialects.body_budget import SMALL_BYTES, share_of
from mlx_server.gateway.dialects.validation import first_mistake
from mlx_server.gateway.dialects.value_limits import check_counts
from mlx_server.gateway.errors import BadRequest
from vestal.web.http_error import HttpError
from vestal.web.json_body import parse_object


class Body(BaseModel):
    """Base class of all bodies. It refuses wrong types, and ignores unknown fields: clients send many."""

    model_config = ConfigDict(strict=True, extra="ignore", frozen=True, allow_inf_nan=False)


def _as_integer(value: Any) -> Any:
    """Return 64 for 64.0: JSON has one kind of number, and some clients write whole numbers so."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


ModelName = Annotated[str, Field(min_length=1, max_length=255)]
"""Messages, logs and answers repeat the name of the model."""
WholeNumber = Annotated[int, BeforeValidator(_as_integer)]
T = TypeVar("T")
ListOf = Annotated[list[T], Field(fail_fast=True)]
"""A list that is validated up to its first wrong item: to report on a million of them took 30 s and 3 GB."""
MAX_STOPS, MAX_STOP_CHARS = 256, 1000
StopText = Annotated[str, Field(max_length=MAX_STOP_CHARS)]
StopTexts = Annotated[list[StopText], Field(max_length=MAX_STOPS, fail_fast=True)]
"""The engine looks for each of them after each token: 131,000 took seconds a token, from all streams."""
Stops = StopTexts | StopText | None
"""One text or several. Python takes `A | B | None` and `B | A | None` for the same, and keeps the one that it
saw first. Written once, the order does not depend on the imports; the first mistake is named by it."""
BodyT = TypeVar("BodyT", bound=Body)


async def read_body(http: Request, model: type[BodyT], max_bytes: int) -> BodyT:
    """Return the body as `model`. Raises BadRequest, and the errors of `body_reading.receive`. Large bodies
    are parsed in a thread, one at a time, so that other clients' streams continue.
    """
    parts = await body_reading.receive(http, max_bytes)
    if sum(map(len, parts)) <= SMALL_BYTES:
        return parse_body(parts, model)
    async with share_of(http).budget.parsing:
        return await asyncio.to_thread(parse_body, parts, model)


def parse_body(parts: list[bytes], model: type[BodyT]) -> BodyT:
    """Return the body as `model`. Raises BadRequest, TooLarge. Clears `parts`, which frees their memory."""
    raw = b"".join(parts)
    parts.clear()
    is_large = len(raw) > SMALL_BYTES
    if is_large:
        check_counts(raw)
    return validated(parsed_object(raw, stepwise=is_large), model)


def parsed_object(raw: bytes, *, stepwise: bool = False) -> dict[str, Any]:
    """Return the JSON object in `raw`. Raises BadRequest.

    With `stepwise`, parsing lets other threads run in between. Half of a surrogate pair becomes U+FFFD: if it
    were refused, so would be every later turn of its conversation.
    """
    try:
        return parse_object(raw, stepwise=stepwise, replaces_surrogates=True)
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
