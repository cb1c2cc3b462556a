"""The error that every HTTP service answers with, and its JSON envelope. Pure."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

STATUSES = {
    "invalid_json": 400,
    "invalid_request": 400,
    "unauthorized": 401,
    "forbidden": 403,
    "not_found": 404,
    "method_not_allowed": 405,
    "request_timeout": 408,
    "too_large": 413,
    "unsupported_media_type": 415,
    "too_many_requests": 429,
    "internal_error": 500,
}
"""The codes that services share. See the package's docstring for their meaning."""

RETRY_AFTER_S = 5.0
"""How many seconds a client should wait after a status of TEMPORARY for which no other time is known."""

TEMPORARY = frozenset({429, 503})
"""The statuses of errors that end by themselves. They always have the header `Retry-After`, because clients
read from it that they may ask again.
"""


class HttpError(Exception):
    """A request that is answered with an error.

    `code` is stable and for programs. `message` is one sentence that names what is wrong and the remedy.
    `fields` are further facts for programs. `retry_after_s` is how many seconds a client should wait before
    it asks again; None if nothing is known about that.
    """

    status: int = 0

    def __init__(
        self,
        code: str,
        message: str,
        *,
        status: int | None = None,
        retry_after_s: float | None = None,
        headers: Mapping[str, str] | None = None,
        **fields: Any,
    ) -> None:
        """Create the error. Its HTTP status is `status`, else that of the subclass, else that of `code` in
        STATUSES. With a status of TEMPORARY, `retry_after_s` is RETRY_AFTER_S by default.

        `headers` are added to the response's headers, and `fields` to its JSON. Raises KeyError if there is
        no status: neither `status` nor the subclass has one, and `code` is not in STATUSES.
        """
        super().__init__(message)
        self.status = status or type(self).status or STATUSES[code]
        self.code = code
        self.message = message
        self.retry_after_s = (
            RETRY_AFTER_S if retry_after_s is None and self.status in TEMPORARY else retry_after_s
        )
        self.fields = fields
        self._headers = headers or {}

    def headers(self) -> dict[str, str]:
        """Return the response's headers: those given, and those that HTTP requires for this status."""
        headers = dict(self._headers)
        if self.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        if self.retry_after_s is not None:
            headers["Retry-After"] = str(max(1, math.ceil(self.retry_after_s)))
        return headers

    def envelope(self) -> str:
        """Return `{"error": {"code", "message", ...}}` as JSON text. Lone surrogates become escapes."""
        return json.dumps({"error": {**self.fields, "code": self.code, "message": self.message}})
