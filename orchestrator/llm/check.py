"""Check whether one backend is healthy, and which models it has."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Mapping
from typing import Any

import aiohttp

from orchestrator.llm.backend import Backend, canonical
from orchestrator.llm.json_body import json_of

CHECK_TIMEOUT = aiohttp.ClientTimeout(total=2.0, connect=1.0)


async def check_backend(
    session: aiohttp.ClientSession, name: str, url: str, headers: Mapping[str, str]
) -> Backend:
    """Return the backend's health. Never raises.

    A backend is healthy if it lists its models and does not answer 5xx to `/health` (Ollama has no `/health`
    and answers 404).
    """
    if not url:
        return Backend(name, used=False, healthy=False, detail="no address is configured")
    try:
        async with asyncio.timeout(CHECK_TIMEOUT.total):
            health, tags = await asyncio.gather(
                _get(session, f"{url}/health", headers), _get(session, f"{url}/api/tags", headers)
            )
    except TimeoutError:
        return Backend(name, used=True, healthy=False, detail=f"no answer within {CHECK_TIMEOUT.total:.0f} s")
    except (aiohttp.ClientError, OSError, ValueError) as error:  # ValueError: a name that cannot be looked up
        return Backend(name, used=True, healthy=False, detail=_why(error), unreachable=is_unreachable(error))
    return _judge(name, health, tags)


def _judge(name: str, health: tuple[int, Any], tags: tuple[int, Any]) -> Backend:
    # Ollama has no /health (404): its list of models has to suffice.
    if health[0] >= 500:
        status = health[1].get("status") if isinstance(health[1], dict) else None
        return Backend(name, used=True, healthy=False, detail=f"/health says {status or health[0]}")
    listed = tags[1].get("models") if isinstance(tags[1], dict) else None
    if tags[0] != 200 or not isinstance(listed, list):
        return Backend(name, used=True, healthy=False, detail=f"/api/tags answers {tags[0]}")
    names = {str(m.get("model") or m.get("name") or "") for m in listed if isinstance(m, dict)} - {""}
    detail = "" if names else "it answers, but has no models"
    return Backend(name, used=True, healthy=True, models=frozenset(map(canonical, names)), detail=detail)


async def _get(session: aiohttp.ClientSession, url: str, headers: Mapping[str, str]) -> tuple[int, Any]:
    async with session.get(url, timeout=CHECK_TIMEOUT, headers=headers) as reply:
        return reply.status, await json_of(reply)


def is_unreachable(error: Exception) -> bool:
    """Return True if the error of a request means that nothing listens at the server's address, or that its
    host name is unknown; False for any other error, such as a time-out or a broken answer.
    """
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return True
    if not isinstance(error, aiohttp.ClientConnectorError):
        return False
    # For a name with several addresses, asyncio raises one OSError for all of them, without errno if they
    # differ.
    refused = error.os_error.errno == errno.ECONNREFUSED
    return refused or f"[Errno {errno.ECONNREFUSED}]" in str(error.os_error)


def _why(error: Exception) -> str:
    if isinstance(error, aiohttp.ClientConnectorError):
        return f"no connection ({error.os_error.strerror or error.os_error})"
    return str(error) or type(error).__name__
