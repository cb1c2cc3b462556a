"""Send HTTP requests to services of this machine: no proxy, no redirects, a short deadline."""

import errno
import json
import os
import sys
from dataclasses import dataclass
from typing import Any

import aiohttp

TIMEOUT_S = 3.0
MAX_BODY_BYTES = 4 * 1024 * 1024
NO_ROUTE = f"[Errno {errno.EHOSTUNREACH}]"
LOCAL_NETWORK = (
    "macOS may keep this program from the local network: System Settings, Privacy & Security, Local Network"
)


class NoAnswer(Exception):
    """Raised if no answer comes: the connection fails or breaks off, or the deadline passes. The message says
    why in a few words.
    """


class AnswerTimeout(NoAnswer):
    """Raised if the deadline passes before an answer comes, although the connection was not refused."""


@dataclass(frozen=True)
class Reply:
    """An answer: its status, and its body as parsed JSON, or None if the body is not JSON or is nested too
    deeply.
    """

    status: int
    body: Any

    @property
    def fields(self) -> dict[str, Any]:
        """Return the body if it is an object, else an empty dictionary."""
        return self.body if isinstance(self.body, dict) else {}


async def get(session: aiohttp.ClientSession, url: str, timeout_s: float = TIMEOUT_S) -> Reply:
    """Send a GET request and return the reply, whatever its status. Raises NoAnswer if no reply comes."""
    timeout = aiohttp.ClientTimeout(total=timeout_s)
    try:
        async with session.get(url, timeout=timeout, allow_redirects=False) as reply:
            return Reply(reply.status, _json(await _read(reply.content)))
    except TimeoutError:
        raise AnswerTimeout(f"no answer within {timeout_s:g} s") from None
    except aiohttp.ClientConnectorError as error:
        raise NoAnswer(why_not_connected(error.os_error)) from None
    except (aiohttp.ClientError, OSError, ValueError) as error:
        raise NoAnswer(f"the connection broke off ({error or type(error).__name__})") from None


def why_not_connected(error: OSError) -> str:
    """Return in plain words why there is no connection. asyncio's own message, `Connect call failed`, does
    not say why. On macOS, "no route" also names the setting that keeps programs from the local network.
    """
    if isinstance(error, ConnectionRefusedError):
        return "nothing listens there"
    why = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
    # asyncio joins the failures of a name with several addresses into one text.
    return f"{why}; {LOCAL_NETWORK}" if sys.platform == "darwin" and NO_ROUTE in str(error) else why


async def _read(content: aiohttp.StreamReader) -> bytes:
    """Read the body to its end, however many pieces it arrives in; drop what is over MAX_BODY_BYTES."""
    raw = bytearray()
    async for piece in content.iter_any():
        raw += piece
        if len(raw) > MAX_BODY_BYTES:
            break
    return bytes(raw[:MAX_BODY_BYTES])


def _json(raw: bytes) -> Any:
    try:
        return json.loads(raw)
    except (ValueError, RecursionError):  # whatever listens on the port may have written it
        return None
