"""Translate large bodies in a thread, while the event loop serves the streams of all other clients."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from starlette.requests import HTTPConnection

from mlx_server.gateway.dialects.body_budget import SMALL_BYTES, share_of

T = TypeVar("T")


async def translated(http: HTTPConnection, translate: Callable[[], T], *, added_bytes: int = 0) -> T:
    """Call `translate`, which makes the requests for the engine from the body of `http`, and return its
    result or raise its exception.

    `translate` must be pure, because it runs in a thread if the body or `added_bytes` exceeds SMALL_BYTES.
    `added_bytes` is the size of what is translated in addition to the body, such as the earlier items of the
    conversation. Only one large body is parsed or translated at a time. The translation (messages and tools
    for the template, the schema of a call, and the encoding for the engine) takes 0.5 s for a body with a
    million values.
    """
    share = share_of(http)
    if not share.held_bytes and added_bytes <= SMALL_BYTES:
        return translate()
    async with share.budget.parsing:
        return await asyncio.to_thread(translate)
