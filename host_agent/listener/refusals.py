"""Every refusal is JSON: {"error": {"code", "message"}}. The one place that maps errors to HTTP.

Refusal
├── BadRequest 400      ├── Forbidden 403    ├── TooLarge 413          ├── TooMany 429 (Retry-After)
├── Unauthorized 401    ├── NotFound 404     ├── NotJson 415           └── TooSlow 408
└── Conflict 409
"""

import json
import math
from http import HTTPStatus
from typing import ClassVar

from aiohttp import web

from host_agent.errors import HostAgentError, NotPossible, UnknownService


class Refusal(Exception):
    """Nothing was done. The message names what is wrong and the remedy."""

    status: ClassVar[int] = 400
    code: ClassVar[str] = "bad_request"

    def headers(self) -> dict[str, str]:
        return {}


class BadRequest(Refusal):
    pass


class Unauthorized(Refusal):
    status, code = 401, "unauthorized"

    def headers(self) -> dict[str, str]:
        return {"WWW-Authenticate": "Bearer"}


class Forbidden(Refusal):
    status, code = 403, "forbidden"


class NotFound(Refusal):
    status, code = 404, "not_found"


class TooSlow(Refusal):
    status, code = 408, "too_slow"


class Conflict(Refusal):
    status, code = 409, "not_possible"


class TooLarge(Refusal):
    status, code = 413, "too_large"


class NotJson(Refusal):
    status, code = 415, "not_json"


class TooMany(Refusal):
    status, code = 429, "too_many"

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s

    def headers(self) -> dict[str, str]:
        return {"Retry-After": str(max(1, math.ceil(self.retry_after_s)))}


def of(error: HostAgentError) -> Refusal:
    """The refusal that stands for an error of the agent."""
    if isinstance(error, UnknownService):
        return NotFound(str(error))
    return Conflict(str(error)) if isinstance(error, NotPossible) else BadRequest(str(error))


def answer(refusal: Refusal) -> web.Response:
    """The refusal as a response. What was not read of the request goes with the connection."""
    response = error_response(refusal.status, refusal.code, str(refusal), refusal.headers())
    if isinstance(refusal, TooLarge | TooSlow):
        response.force_close()
    return response


CODES = {TooLarge.status: TooLarge.code}  # one code, whether the length was announced or not


def of_http(error: web.HTTPException) -> web.Response:
    """What aiohttp itself refuses (404, 405, 413), in our envelope."""
    code = CODES.get(error.status) or HTTPStatus(error.status).name.lower()
    kept = {name: error.headers[name] for name in ("Allow",) if name in error.headers}
    message = {
        404: "There is nothing at this address; `GET /status` shows what there is.",
        405: f"This address takes {error.headers.get('Allow', 'another method')}.",
        413: "The body is over 64 KiB.",
    }.get(error.status, error.reason or code)
    response = error_response(error.status, code, message, kept)
    if error.status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        response.force_close()
    return response


def error_response(status: int, code: str, message: str, headers: dict[str, str]) -> web.Response:
    body = json.dumps({"error": {"code": code, "message": message}})
    return web.Response(status=status, text=body, content_type="application/json", headers=headers)
