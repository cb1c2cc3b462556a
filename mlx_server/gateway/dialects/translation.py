"""Translate large bodies in a thread: the event loop serves the streams of all other clients meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from starlette.requests import HTTPConnection

from mlx_server.gateway.dialects.body_budget import SMALL_BYTES, share_of

T = TypeVar("T")


async def translated(http: HTTPConnection, translate: Callable[[], T], *, added_bytes: int = 0) -> T:
    """Return the result of `translate` for the body of `http`; raise its exceptions. `added_bytes` are
    counted in addition to the body.

    It must be pure, since for a large body it runs in a thread, like the parsing before it and one at a time
    with that. Messages and tools for the template, the schema of a call, and the encoding for the engine take
    0.5 s if a body has a million values.
    """
    share = share_of(http)
    if not share.held_bytes and added_bytes <= SMALL_BYTES:
        return translate()
    async with share.budget.parsing:
        return await asyncio.to_thread(translate)
