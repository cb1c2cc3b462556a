"""Reading request bodies: bounded, JSON whatever the Content-Type says, every mistake named in one sentence.

Ollama's own client and `curl -d` send JSON as `application/x-www-form-urlencoded`; browsers that would use
that to skip the preflight are refused by their Origin (`access`).
"""

from __future__ import annotations

import json
from typing import Annotated, Any, NoReturn, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from starlette.requests import ClientDisconnect, Request

from mlx_server.gateway.dialects.validation import sentence
from mlx_server.gateway.errors import BadRequest, TooLarge
from mlx_server.gateway.requests.ticket import ClientDisconnected

DISCARDED_BODIES = 4
"""So many times the limit is read and thrown away, so that the client reads our answer and not a reset."""


class Body(BaseModel):
    """Base of every body. Wrong types are refused; unknown fields are not, clients send many."""

    model_config = ConfigDict(strict=True, extra="ignore", frozen=True, allow_inf_nan=False)


def _whole(value: Any) -> Any:
    """JSON knows one kind of number, and some clients write 64 as 64.0."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


Whole = Annotated[int, BeforeValidator(_whole)]
T = TypeVar("T")
Many = Annotated[list[T], Field(fail_fast=True)]
"""A list whose first wrong item is the last looked at: a million took 30 s and 3 GB to complain of."""
B = TypeVar("B", bound=Body)


async def read(request: Request, model: type[B], max_bytes: int) -> B:
    """The body as `model`. Raises BadRequest, TooLarge, ClientDisconnected."""
    return validate(parse(await read_bytes(request, max_bytes)), model)


async def read_bytes(request: Request, max_bytes: int) -> bytes:
    """The whole body. Raises TooLarge, ClientDisconnected."""
    chunks: list[bytes] = []
    size = 0
    try:
        async for chunk in request.stream():
            size += len(chunk)
            if size <= max_bytes:
                chunks.append(chunk)
            elif size > DISCARDED_BODIES * max_bytes:
                break
    except ClientDisconnect as left:
        raise ClientDisconnected from left
    if size > max_bytes:
        raise TooLarge(
            "body_too_large",
            f"the body is over the limit of {max_bytes} bytes; send less, or raise mlx.max_body_bytes",
            max_body_bytes=max_bytes,
        )
    return b"".join(chunks)


def parse(raw: bytes) -> dict[str, Any]:
    """The JSON object in `raw`. Raises BadRequest."""
    if not raw.strip():
        raise BadRequest("invalid_json", "the body is empty; send a JSON object")
    try:
        data = json.loads(raw.decode("utf-8"), parse_constant=_no_constant)
        if b"\\u" in raw:
            json.dumps(data, ensure_ascii=False).encode("utf-8")  # half a surrogate pair is no text
    except UnicodeError as error:
        raise BadRequest("invalid_json", f"the body is not valid UTF-8: {error}") from error
    except RecursionError as error:
        raise BadRequest("invalid_json", "the body is nested too deeply") from error
    except ValueError as error:
        raise BadRequest("invalid_json", f"the body is not valid JSON: {error}") from error
    if not isinstance(data, dict):
        raise BadRequest("invalid_json", f"the body must be a JSON object, not {_kind(data)}")
    return data


def validate(data: dict[str, Any], model: type[B]) -> B:
    """`data` as `model`. Raises BadRequest, naming the field."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise BadRequest("invalid_request", sentence(error)) from error


def refuse(field: str, what: str) -> NoReturn:
    """Something that the API has and this server has not."""
    raise BadRequest("not_supported", f"{field}: {what}", field=field)


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _kind(value: Any) -> str:
    kinds = {list: "a list", str: "a string", bool: "a boolean", type(None): "null"}
    return kinds.get(type(value), "a number")
