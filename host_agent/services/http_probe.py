"""Asks a service over HTTP on this host. No proxy, no redirects, a short time."""

import json
from dataclasses import dataclass
from typing import Any

import aiohttp

TIMEOUT_S = 3.0
MAX_BODY_BYTES = 4 * 1024 * 1024


class NoAnswer(Exception):
    """Nothing came back in time; the message says why in a few words."""


@dataclass(frozen=True)
class Reply:
    status: int
    body: Any  # parsed JSON; None where it is none

    @property
    def fields(self) -> dict[str, Any]:
        return self.body if isinstance(self.body, dict) else {}


async def get(session: aiohttp.ClientSession, url: str, timeout_s: float = TIMEOUT_S) -> Reply:
    """GET; raises NoAnswer."""
    timeout = aiohttp.ClientTimeout(total=timeout_s)
    try:
        async with session.get(url, timeout=timeout, allow_redirects=False) as reply:
            raw = await reply.content.read(MAX_BODY_BYTES)
            return Reply(reply.status, _json(raw))
    except TimeoutError:
        raise NoAnswer(f"no answer within {timeout_s:g} s") from None
    except aiohttp.ClientConnectorError as error:
        raise NoAnswer(f"nothing listens there ({error.strerror or error})") from None
    except (aiohttp.ClientError, OSError, ValueError) as error:
        raise NoAnswer(f"the connection broke off ({error or type(error).__name__})") from None


def _json(raw: bytes) -> Any:
    try:
        return json.loads(raw)
    except ValueError:
        return None
