"""Read request bodies: limited in size, as JSON, and with one sentence about the first mistake.

A body is read as JSON whatever its Content-Type says, because Ollama's own client and `curl -d` send JSON as
`application/x-www-form-urlencoded`. A browser page that does the same to avoid the preflight request is
refused because of its Origin.
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
    """Base class of all bodies. It refuses values of wrong types, and ignores unknown fields, because clients
    send many of these.
    """

    model_config = ConfigDict(strict=True, extra="ignore", frozen=True, allow_inf_nan=False)


def _as_integer(value: Any) -> Any:
    """Return a float that is a whole number as an int (64 for 64.0), because some clients send integers as
    floats. Return any other value as it is.
    """
    return int(value) if isinstance(value, float) and value.is_integer() else value


ModelName = Annotated[str, Field(min_length=1, max_length=255)]
"""The name of a model. Its length is limited because messages, logs and answers repeat it."""
WholeNumber = Annotated[int, BeforeValidator(_as_integer)]
T = TypeVar("T")
ListOf = Annotated[list[T], Field(fail_fast=True)]
"""A list that is validated up to its first wrong item. Reporting a million wrong items would take 30 s and
3 GB."""
MAX_STOPS, MAX_STOP_CHARS = 256, 1000
StopText = Annotated[str, Field(max_length=MAX_STOP_CHARS)]
StopTexts = Annotated[list[StopText], Field(max_length=MAX_STOPS, fail_fast=True)]
"""Stop strings. Their number is limited because the engine searches for each one after each token, and
131,000 of them would delay all streams by seconds per token."""
Stops = StopTexts | StopText | None
"""One stop string or several. The order of this union decides which mistake is reported first. Python treats
`A | B | None` and `B | A | None` as equal and reuses the one that it saw first, so the union is written only
once, and its order does not depend on the imports."""
BodyT = TypeVar("BodyT", bound=Body)


async def read_body(http: Request, model: type[BodyT], max_bytes: int) -> BodyT:
    """Return the request's body as an instance of the class `model`. Large bodies are parsed in a thread, one
    at a time, so that other clients' streams continue.

    Raises BadRequest if the body is not a JSON object or has a wrong field, TooLarge if it has too many
    values, and the errors of `body_reading.receive`.
    """
    parts = await body_reading.receive(http, max_bytes)
    if sum(map(len, parts)) <= SMALL_BYTES:
        return parse_body(parts, model)
    async with share_of(http).budget.parsing:
        return await asyncio.to_thread(parse_body, parts, model)


def parse_body(parts: list[bytes], model: type[BodyT]) -> BodyT:
    """Return the body, whose bytes are `parts`, as an instance of the class `model`. Clears `parts`, which
    frees their memory. Raises BadRequest if the body is not a JSON object or has a wrong field, and TooLarge
    if it has too many values.
    """
    raw = b"".join(parts)
    parts.clear()
    is_large = len(raw) > SMALL_BYTES
    if is_large:
        check_counts(raw)
    return validated(parsed_object(raw, stepwise=is_large), model)


def parsed_object(raw: bytes, *, stepwise: bool = False) -> dict[str, Any]:
    """Return the JSON object in `raw`. Raises BadRequest if `raw` is not one.

    With `stepwise`, parsing pauses to let other threads run. An unpaired surrogate becomes U+FFFD; if it were
    refused, every later turn of the conversation that contains it would be refused too.
    """
    try:
        return parse_object(raw, stepwise=stepwise, replaces_surrogates=True)
    except HttpError as error:
        raise BadRequest(error.code, error.message) from error


def validated(data: dict[str, Any], model: type[BodyT]) -> BodyT:
    """Return the JSON object `data` as an instance of the class `model`. Raises BadRequest, which names the
    first wrong field, if a field is wrong.
    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise BadRequest("invalid_request", first_mistake(error)) from error


def not_supported(field: str, message: str) -> NoReturn:
    """Raise BadRequest for a field that the API has but this server does not support. `message` says what is
    not supported.
    """
    raise BadRequest("not_supported", f"{field}: {message}", field=field)
