"""Track the health of all backends, and choose the backend for the next call.

Every cycle of the orchestrator begins by checking all backends in parallel. The health board stores each
backend's last result, its breaker and the number of its running calls. A call that finds a backend dead
updates the board for every other caller, so that no two callers wait for the same time-out.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace

import aiohttp

from orchestrator.events import emit
from orchestrator.llm.backend import Backend, canonical
from orchestrator.llm.breaker import BackendBreaker, BackendBreakerState
from orchestrator.llm.check import check_backend
from orchestrator.llm.hosts import pick
from orchestrator.llm.presence import Presence

FRESH_S = 15.0  # an older result is renewed before a call picks a backend
RETRY_S = 1.0  # an older result is renewed if no backend had the wanted model
BUSY_S = 5.0  # for at least this time, a backend without room for a model is the last choice for it


class HealthBoard:
    """The last known state of every backend. `urls` maps the backends' names to their addresses, in order of
    preference.
    """

    def __init__(self, session: aiohttp.ClientSession, urls: Mapping[str, str], api_key: str = "") -> None:
        self._session = session
        self._key = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self.urls = dict(urls)
        self.backends: tuple[Backend, ...] = tuple(
            Backend(name, used=bool(url), healthy=False, detail="not checked yet")
            for name, url in self.urls.items()
        )
        self.breakers = {name: BackendBreaker() for name in self.urls}
        self.in_flight = dict.fromkeys(self.urls, 0)
        self._others_until: dict[tuple[str, str], float] = {}  # by the names of backend and model
        self._presence = Presence()
        self.checks = 0
        self._checked_at = float("-inf")
        self._changed = asyncio.Event()
        self._asking = asyncio.Lock()
        self.on_change: Callable[[Backend, Backend], None] = lambda before, after: None

    async def check_llm_services_health(self) -> tuple[Backend, ...]:
        """Check all backends in parallel, and return them. Never raises, and takes at most as long as the
        time-out of one check.

        A backend whose breaker is open is not checked before a trial is due, and keeps its last result.
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

    async def fresh(self, max_age_s: float = FRESH_S) -> tuple[Backend, ...]:
        """Return the backends as last checked, if that was at most `max_age_s` seconds ago. Otherwise check
        them; concurrent callers share one check.
        """
        async with self._asking:
            if time.monotonic() - self._checked_at > max_age_s:
                return await self.check_llm_services_health()
            return self.backends

    async def serving(
        self, model: str, kind: str | None = None, without: Collection[str] = ()
    ) -> Backend | None:
        """Return the backend to use for a call to this model: a healthy one of this kind (None: any) that has
        the model and whose breaker admits a call. A backend that recently had no room for this model or
        crashed (one that is not `is_preferred`) is chosen only if there is no other. A backend whose name is
        in `without` is never chosen. If no backend is suitable, check all backends again, unless that was
        done in the last second. Return None if there is still none.
        """
        for max_age_s in (FRESH_S, RETRY_S):
            backends = [b for b in await self.fresh(max_age_s) if b.name not in without]
            now = time.monotonic()
            for choice in ([b for b in backends if self.is_preferred(b.name, model)], backends):
                found = pick(choice, model, self.urls, self.in_flight, self.breakers, now, kind)
                if found is not None:
                    return found
        return None

    async def take(
        self, model: str, kind: str | None = None, without: Collection[str] = ()
    ) -> Backend | None:
        """Choose a backend for a call to `model` by `serving`, count the call as begun, and return the
        backend. Return None if no healthy backend has the model and admits a call. `kind` limits the choice
        to backends of that kind, `mlx` or `ollama` (None: any), and `without` has the names of backends that
        must not be chosen.

        The caller must report the call's end with `succeeded`, `failed`, `busy` or `abandoned`.
        """
        found = await self.serving(model, kind, without)
        if found is None:
            return None
        self.in_flight[found.name] += 1
        self._judge(found.name, self.breakers[found.name].admitted(time.monotonic()))
        return found

    def succeeded(self, name: str) -> None:
        """Record that a call to the backend `name`, begun by `take`, succeeded."""
        self.in_flight[name] -= 1
        self._judge(name, self.breakers[name].call_succeeded())

    def abandoned(self, name: str) -> None:
        """Record that a call to the backend `name`, begun by `take`, ended without showing whether the
        backend works, for example because this process cancelled it. The call counts neither as a success nor
        as a failure. If it was the trial call of the backend's breaker, the next call is the trial.
        """
        self.in_flight[name] -= 1
        self._judge(name, self.breakers[name].abandoned(time.monotonic()))

    def busy(self, name: str, model: str, for_s: float) -> None:
        """Record that the backend `name` had no room for a call to `model`, begun by `take`, and asked to
        wait for `for_s` seconds. That is no failure of the backend, but for this time, and at least for
        BUSY_S seconds, other backends are preferred for this model.
        """
        self.abandoned(name)
        self.prefer_others(name, model, max(BUSY_S, for_s))

    def prefer_others(self, name: str, model: str, for_s: float) -> None:
        """For `for_s` seconds, choose the backend `name` for calls to `model` only if there is no other. A
        longer time that was given before still holds.
        """
        key = name, canonical(model)
        self._others_until[key] = max(self._others_until.get(key, 0.0), time.monotonic() + for_s)

    def is_preferred(self, name: str, model: str) -> bool:
        """Return False if the backend `name` is at present to be chosen for calls to `model` only if there is
        no other, because of `busy` or `prefer_others`.
        """
        return self._others_until.get((name, canonical(model)), 0.0) <= time.monotonic()

    def failed(self, name: str, detail: str, lost: bool, gone: bool = False) -> None:
        """Record that a call to the backend `name`, begun by `take`, failed. `detail` says why.

        `lost` means that the connection failed or timed out; the backend then counts as unhealthy until the
        next health check. `gone` means that nothing listens at its address; callers set it only together with
        `lost`.

        If `gone` is true, the breaker counts a failed health check, and otherwise a failed call. If failed
        health checks open the breaker, the next successful one closes it again. If failed calls open it, only
        a successful call closes it.
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
        """Return the headers for a request to this backend: the API key, or none for this machine's own
        backend.
        """
        return {} if backend.of_this_machine else self._key

    def seconds_until_trial(self) -> dict[str, float]:
        """Return the seconds until a trial call is admitted, for each backend that currently admits
        no call.
        """
        now = time.monotonic()
        return {name: b.until - now for name, b in self.breakers.items() if not b.admits(now)}

    def outage_reported(self, names: Iterable[str]) -> tuple[Backend, ...]:
        """Record that the outage of the named backends was reported to the host agent. Return all backends
        with their updated state.
        """
        self._presence = self._presence.after_post(names)
        self.backends = self._presence.judged(self.backends)
        return self.backends

    async def wait_for_change(self, timeout_s: float) -> None:
        """Wait until the health or the models of a backend change, for at most `timeout_s` seconds."""
        try:
            await asyncio.wait_for(self._changed.wait(), timeout_s)
        except TimeoutError:
            return

    def _judge(self, name: str, breaker: BackendBreaker, cause: str = "") -> None:
        before, self.breakers[name] = self.breakers[name], breaker
        if before.by_call == breaker.by_call and before.opens == breaker.opens:
            return
        if breaker.state is BackendBreakerState.OPEN and breaker.by_call:
            next_trial_in_s = round(breaker.until - time.monotonic(), 1)
            emit(
                "breaker_opened",
                cause,
                backend=name,
                failures=breaker.failures,
                next_trial_in_s=next_trial_in_s,
            )
        elif breaker.state is BackendBreakerState.CLOSED and before.by_call:
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
