"""Read the JSON body of a server's reply. A body that is not JSON is read as None."""

from __future__ import annotations

import json
from typing import Any

import aiohttp


async def json_of(reply: aiohttp.ClientResponse) -> Any:
    """Return the JSON value in the reply's body; None if the body is not JSON, or is nested so deeply that
    Python cannot read it.
    """
    try:
        return json.loads(await reply.read())
    except (ValueError, RecursionError):
        return None
