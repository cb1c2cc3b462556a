"""Which LLM backends live, and what they serve: asked at the start of every cycle, both at once.

The board keeps the last answer, so that work which finds a backend dead tells everybody else at once and
nobody waits for the same time-out twice.
"""

from __future__ import annotations

import asyncio
import errno
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import aiohttp

from .cycle import Backend, canonical
from .webhook_policy import Presence

CHECK_TIMEOUT = aiohttp.ClientTimeout(total=2.0, connect=1.0)
FRESH_S = 15.0  # an answer older than this is asked for again before work picks a backend
RETRY_S = 1.0  # and one older than this where nobody served what was wanted


async def check_backend(session: aiohttp.ClientSession, name: str, url: str) -> Backend:
    """One backend's health: `/health` (where it has one) is no refusal, and it lists its models."""
    if not url:
        return Backend(name, used=False, healthy=False, detail="no address is configured")
    try:
        async with asyncio.timeout(CHECK_TIMEOUT.total):
            health, tags = await asyncio.gather(
                _get(session, f"{url}/health"), _get(session, f"{url}/api/tags")
            )
    except TimeoutError:
        return Backend(name, used=True, healthy=False, detail=f"no answer within {CHECK_TIMEOUT.total:.0f} s")
    except (aiohttp.ClientError, OSError) as error:
        return Backend(name, used=True, healthy=False, detail=_why(error), unreachable=is_unreachable(error))
    return _judge(name, health, tags)


def _judge(name: str, health: tuple[int, Any], tags: tuple[int, Any]) -> Backend:
    # Ollama has no /health (404): its list of models must do.
    if health[0] >= 500:
        said = health[1].get("status") if isinstance(health[1], dict) else None
        return Backend(name, used=True, healthy=False, detail=f"/health says {said or health[0]}")
    listed = tags[1].get("models") if isinstance(tags[1], dict) else None
    if tags[0] != 200 or not isinstance(listed, list):
        return Backend(name, used=True, healthy=False, detail=f"/api/tags answers {tags[0]}")
    names = {str(m.get("model") or m.get("name") or "") for m in listed if isinstance(m, dict)} - {""}
    detail = "" if names else "it answers, but has no models"
    return Backend(name, used=True, healthy=True, models=frozenset(map(canonical, names)), detail=detail)


async def _get(session: aiohttp.ClientSession, url: str) -> tuple[int, Any]:
    async with session.get(url, timeout=CHECK_TIMEOUT) as reply:
        try:
            return reply.status, await reply.json(content_type=None)
        except ValueError:
            return reply.status, None


def is_unreachable(error: Exception) -> bool:
    """Nothing listens there, or the name is unknown; not: it hangs, breaks off or answers nonsense."""
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return True
    if not isinstance(error, aiohttp.ClientConnectorError):
        return False
    # A name with several addresses gives one OSError about all of them, without an errno where they differ.
    refused = error.os_error.errno == errno.ECONNREFUSED
    return refused or f"[Errno {errno.ECONNREFUSED}]" in str(error.os_error)


def _why(error: Exception) -> str:
    if isinstance(error, aiohttp.ClientConnectorError):
        return f"no connection ({error.os_error.strerror or error.os_error})"
    return str(error) or type(error).__name__


class HealthBoard:
    """The last known state of every backend, MLX first: it is the one that batches."""

    def __init__(self, session: aiohttp.ClientSession, mlx_url: str, ollama_url: str) -> None:
        self._session = session
        self.urls = {"mlx": mlx_url, "ollama": ollama_url}
        self.backends: tuple[Backend, ...] = tuple(
            Backend(name, used=bool(url), healthy=False, detail="not checked yet")
            for name, url in self.urls.items()
        )
        self._presence = Presence()
        self.checks = 0
        self._checked_at = float("-inf")
        self._changed = asyncio.Event()
        self._asking = asyncio.Lock()
        self.on_change: Callable[[Backend, Backend], None] = lambda before, after: None

    async def check_llm_services_health(self) -> tuple[Backend, ...]:
        """Ask all backends now, at once; never raises, and takes no longer than one time-out."""
        checks = (check_backend(self._session, name, url) for name, url in self.urls.items())
        self._set(tuple(await asyncio.gather(*checks)))
        self.checks += 1
        self._checked_at = time.monotonic()
        return self.backends

    async def fresh(self, most_age_s: float = FRESH_S) -> tuple[Backend, ...]:
        """The last answer where it is recent, else a new one, shared by all who ask meanwhile."""
        async with self._asking:
            if time.monotonic() - self._checked_at > most_age_s:
                return await self.check_llm_services_health()
            return self.backends

    async def serving(self, model: str) -> Backend | None:
        """The first healthy backend that has the model; looks once more before it says there is none."""
        for most_age_s in (FRESH_S, RETRY_S):
            for backend in await self.fresh(most_age_s):
                if backend.serves(model):
                    return backend
        return None

    def report_failure(self, name: str, detail: str) -> None:
        """Whoever finds a backend dead says so; it counts as down until it is next checked."""
        self._set(
            tuple(replace(b, healthy=False, detail=detail) if b.name == name else b for b in self.backends)
        )

    def note_told(self, names: Iterable[str]) -> tuple[Backend, ...]:
        """The host agent has heard that these are down; returns the backends as they count from now on."""
        self._presence = self._presence.after_post(names)
        self.backends = self._presence.judged(self.backends)
        return self.backends

    async def wait_for_change(self, timeout_s: float) -> None:
        """Return when some backend's health has changed, or after `timeout_s`."""
        try:
            await asyncio.wait_for(self._changed.wait(), timeout_s)
        except TimeoutError:
            return

    def _set(self, backends: tuple[Backend, ...]) -> None:
        self._presence = self._presence.after_check(backends)
        backends = self._presence.judged(backends)
        pairs = zip(self.backends, backends, strict=True)
        changes = [(a, b) for a, b in pairs if (a.healthy, a.models) != (b.healthy, b.models)]
        self.backends = backends
        if changes:
            self._changed.set()
            self._changed = asyncio.Event()
        for before, after in changes:
            self.on_change(before, after)
