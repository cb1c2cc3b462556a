"""Translates large bodies in a thread: the event loop serves the streams of all other clients meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from starlette.requests import Request

LARGE_BODY_BYTES = 64 * 1024
"""The translation of a larger body (messages and tools for the template, the schema of a call, the encoding
for the engine) may take longer than the 0.1 ms that a thread costs. That of 32 MB of tools takes 0.5 s."""

T = TypeVar("T")


async def translated(http: Request, translate: Callable[[], T]) -> T:
    """Return what `translate` returns for the body of `http`; raise what it raises.

    It must be pure: for a large body, and for one of unknown length, it runs in a thread.
    """
    length = http.headers.get("content-length", "")
    if length.isdecimal() and int(length) <= LARGE_BODY_BYTES:
        return translate()
    return await asyncio.to_thread(translate)
