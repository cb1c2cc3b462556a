"""The first record of a request in the answer log."""

from __future__ import annotations

import secrets

from starlette.types import Scope

from mlx_server import VERSION
from mlx_server.gateway.answer_log import FORMAT, Accepted

SECRET_HEADERS = frozenset({b"authorization", b"x-api-key", b"cookie", b"idempotency-key"})
"""Headers of a request that are not written to the answer log."""


def first_record(scope: Scope, created_s: float, key_digest: str | None = None) -> Accepted:
    """Return the first record of a new request with this ASGI scope, still without its body. `created_s` is
    the time in seconds since 1970, and `key_digest` the digest of the request's idempotency key, or None.
    """
    return Accepted(
        format=FORMAT,
        id=secrets.token_hex(16),
        created_s=created_s,
        method=scope["method"],
        path=scope["path"],
        query=scope["query_string"].decode("latin-1"),
        headers=tuple(
            (name.decode("latin-1"), value.decode("latin-1"))
            for name, value in scope["headers"]
            if name not in SECRET_HEADERS
        ),
        body=b"",
        seed=secrets.randbits(63),
        key_digest=key_digest,
        body_digest="",
        version=VERSION,
    )
