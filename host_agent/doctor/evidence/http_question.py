"""Asks a server one question over HTTP and waits a short while. No proxy, no redirect, no event loop."""

import http.client
import json
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

WITHIN_S = 5.0
MAX_BYTES = 4 * 1024 * 1024
LOCAL = ("127.0.0.1", "localhost", "::1", "0.0.0.0")


@dataclass(frozen=True)
class HttpAnswer:
    """`status` 0: there was none, and `why` says in a few words what came instead."""

    status: int
    fields: dict[str, Any] = field(default_factory=dict)
    why: str = ""
    refused: bool = False


def get(url: str, within_s: float = WITHIN_S) -> HttpAnswer:
    """GET. Never raises for what a server may do."""
    parts = urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname or "127.0.0.1", parts.port, timeout=within_s)
    try:
        connection.request("GET", parts.path or "/")
        reply = connection.getresponse()
        return HttpAnswer(reply.status, _fields(reply.read(MAX_BYTES)))
    except ConnectionRefusedError:
        return HttpAnswer(0, why="nothing listens there", refused=True)
    except TimeoutError:
        return HttpAnswer(0, why=f"no answer within {within_s:g} s")
    except (OSError, http.client.HTTPException) as error:
        return HttpAnswer(0, why=f"the connection broke off ({error or type(error).__name__})")
    finally:
        connection.close()


def is_local(url: str) -> bool:
    """Whether the server should be a process of this machine."""
    return (urlsplit(url).hostname or "") in LOCAL


def _fields(raw: bytes) -> dict[str, Any]:
    try:
        body = json.loads(raw)
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}
