"""Which LLM hosts live, what they serve, and who gets the next call.

All are asked at the start of every cycle, at once. The board keeps the last answer, each host's breaker
and its calls in flight: work that finds a host dead tells everybody else at once, and nobody waits for
the same time-out twice.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

import aiohttp

from orchestrator.events import emit
from orchestrator.llm.backend import Backend
from orchestrator.llm.breaker import Breaker, State
from orchestrator.llm.check import check_backend
from orchestrator.llm.hosts import pick
from orchestrator.llm.presence import Presence

FRESH_S = 15.0  # an answer older than this is asked for again before work picks a backend
RETRY_S = 1.0  # and one older than this where nobody served what was wanted


class HealthBoard:
    """The last known state of every host; `urls` is name → address, in order of preference."""

    def __init__(self, session: aiohttp.ClientSession, urls: Mapping[str, str], api_key: str = "") -> None:
        self._session = session
        self._key = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self.urls = dict(urls)
        self.backends: tuple[Backend, ...] = tuple(
            Backend(name, used=bool(url), healthy=False, detail="not checked yet")
            for name, url in self.urls.items()
        )
        self.breakers = {name: Breaker() for name in self.urls}
        self.in_flight = dict.fromkeys(self.urls, 0)
        self._presence = Presence()
        self.checks = 0
        self._checked_at = float("-inf")
        self._changed = asyncio.Event()
        self._asking = asyncio.Lock()
        self.on_change: Callable[[Backend, Backend], None] = lambda before, after: None

    async def check_llm_services_health(self) -> tuple[Backend, ...]:
        """Ask all hosts now, at once; never raises, and takes no longer than one time-out.

        One whose breaker is open is not asked again before its time: its last answer stands.
        """
        self._set(tuple(await asyncio.gather(*(self._check(backend) for backend in self.backends))))
        self.checks += 1
        self._checked_at = time.monotonic()
        return self.backends

    async def _check(self, last: Backend) -> Backend:
        name = last.name
        if not self.breakers[name].wants_check(time.monotonic()):
            return last
        found = await check_backend(self._session, name, self.urls[name], self.headers(last))
        if found.healthy:
            self._judge(name, self.breakers[name].check_passed())
        elif found.used:
            self._judge(name, self.breakers[name].check_failed(time.monotonic()), found.detail)
        return found

    async def fresh(self, most_age_s: float = FRESH_S) -> tuple[Backend, ...]:
        """The last answer where it is recent, else a new one, shared by all who ask meanwhile."""
        async with self._asking:
            if time.monotonic() - self._checked_at > most_age_s:
                return await self.check_llm_services_health()
            return self.backends

    async def serving(self, model: str) -> Backend | None:
        """The host that a call for this model would go to; looks once more before it says there is none."""
        for most_age_s in (FRESH_S, RETRY_S):
            backends = await self.fresh(most_age_s)
            found = pick(backends, model, self.urls, self.in_flight, self.breakers, time.monotonic())
            if found is not None:
                return found
        return None

    async def take(self, model: str) -> Backend | None:
        """As `serving`, and the call counts as begun: it must end in `succeeded`, `failed` or `abandoned`."""
        found = await self.serving(model)
        if found is None:
            return None
        self.in_flight[found.name] += 1
        self._judge(found.name, self.breakers[found.name].admitted(time.monotonic()))
        return found

    def succeeded(self, name: str) -> None:
        """A call that was taken has ended well."""
        self.in_flight[name] -= 1
        self._judge(name, self.breakers[name].call_succeeded())

    def abandoned(self, name: str) -> None:
        """A call that was taken was called off by us."""
        self.in_flight[name] -= 1
        self._judge(name, self.breakers[name].abandoned(time.monotonic()))

    def failed(self, name: str, detail: str, lost: bool, gone: bool = False) -> None:
        """A call that was taken has failed.

        `lost`: there was no answer, so the host counts as down until it is next checked. `gone`: nothing
        listens there, so the next check that finds it is believed.
        """
        self.in_flight[name] -= 1
        breaker, now = self.breakers[name], time.monotonic()
        self._judge(name, breaker.check_failed(now) if gone else breaker.call_failed(now), detail)
        if lost:
            self._set(
                tuple(
                    replace(b, healthy=False, detail=detail) if b.name == name else b for b in self.backends
                )
            )

    def headers(self, backend: Backend) -> dict[str, str]:
        """What a request to this host must carry: on this machine no key is wanted."""
        return {} if backend.of_this_machine else self._key

    def resting(self) -> dict[str, float]:
        """Hosts that admit no call now → seconds until they may be tried."""
        now = time.monotonic()
        return {name: b.until - now for name, b in self.breakers.items() if not b.admits(now)}

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

    def _judge(self, name: str, breaker: Breaker, cause: str = "") -> None:
        before, self.breakers[name] = self.breakers[name], breaker
        if before.by_call == breaker.by_call and before.opens == breaker.opens:
            return
        if breaker.state is State.OPEN and breaker.by_call:
            rest_s = round(breaker.until - time.monotonic(), 1)
            emit("breaker_opened", cause, backend=name, failures=breaker.failures, next_trial_in_s=rest_s)
        elif breaker.state is State.CLOSED and before.by_call:
            emit("breaker_closed", backend=name)

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
