"""Tells the host agent which backend is down: POST {"ollama": bool, "mlx": bool, "ts": …}."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping
from typing import Any

import aiohttp

from orchestrator.events import emit
from orchestrator.llm.backend import Backend
from orchestrator.recovery_webhook.policy import ListenerAnswer, Pace

SAID = {
    "recovering": "the host agent is at it already",
    "open": "the host agent has given it up for now (`vestal recover --reset` tries again)",
    "manual_stop": "it was stopped by hand on the host (`vestal recover --reset` starts it)",
}
TIMEOUT = aiohttp.ClientTimeout(total=2.0, connect=1.0)


class RecoveryWebhook:
    """Posts when a backend is down, at the pace that the policy allows."""

    def __init__(self, session: aiohttp.ClientSession, url: str, token: str, interval_s: float) -> None:
        self._session = session
        self._url = url
        self._token = token
        self._interval_s = interval_s
        self._pace = Pace()
        self._telling = asyncio.Lock()
        self._standing: Mapping[str, str] = {}  # what the host agent last said of those it leaves alone
        self.posted = 0
        self.told: frozenset[str] = frozenset()  # whose outage the host agent has accepted to look at

    @property
    def next_post_in_s(self) -> float:
        return max(0.0, max(self._pace.due_at, self._pace.asked_until) - time.monotonic())

    @property
    def next_mention_in_s(self) -> float:
        """When what is absent may be mentioned again."""
        return max(0.0, max(self._pace.absent_due_at, self._pace.asked_until) - time.monotonic())

    async def tell(self, backends: tuple[Backend, ...]) -> str:
        """Post if something of this machine is down and it is time; returns in words what was done."""
        async with self._telling:  # the cycle and the monitor may both have seen the same outage
            return await self._tell(tuple(b for b in backends if b.of_this_machine))

    async def _tell(self, backends: tuple[Backend, ...]) -> str:
        down = tuple(b.name for b in backends if b.down)
        absent = tuple(b.name for b in backends if b.absent)
        self._pace = self._pace.seen(down)
        if not down and not absent:
            return "all healthy, nothing to post"
        if not self._url:
            self.told |= set(down)  # there is nobody who could know more
            return f"{_names(down, absent)}, and no RECOVERY_WEBHOOK_URL is set"
        if not self._pace.may_post(time.monotonic(), down, absent):
            next_in_s = self.next_post_in_s if down else self.next_mention_in_s
            said = "; ".join(_said(self._standing, down))
            told = f"{_names(down, absent)}; posted already, next in {next_in_s:.0f} s"
            return f"{told}; {said}" if said else told
        # A backend that is not used has nothing to be healed: to the listener that is "healthy".
        answer = await self._post({b.name: b.healthy or not b.used for b in backends})
        self.posted += 1
        if answer.status == 202:
            self.told |= set(down) - set(answer.backends)  # of these it knows: they are not absent
            self._standing = answer.backends
        self._pace = self._pace.after(answer, time.monotonic(), down, self._interval_s)
        emit(
            "recovery_requested" if answer.status == 202 else "recovery_request_failed",
            answer.detail,
            down=down,
            services=answer.backends,
            absent=absent,
            status=answer.status,
            next_post_in_s=round(self.next_post_in_s, 1),
        )
        return "; ".join([_names(down, absent), answer.detail, *_said(answer.backends, down)])

    async def _post(self, facts: dict[str, bool]) -> ListenerAnswer:
        headers = {"Authorization": f"Bearer {self._token}"}
        body = {**facts, "ts": round(time.time(), 3)}
        try:
            async with self._session.post(self._url, json=body, headers=headers, timeout=TIMEOUT) as reply:
                try:
                    said = await reply.json(content_type=None)
                except ValueError:
                    said = None
                return _answer(
                    reply.status, reply.headers.get("Retry-After"), said if isinstance(said, dict) else {}
                )
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            reason = str(error) or type(error).__name__
            return ListenerAnswer(0, detail=f"the host agent at {self._url} does not answer ({reason})")


def _names(down: tuple[str, ...], absent: tuple[str, ...]) -> str:
    parts = [f"{', '.join(names)} {state}" for names, state in ((down, "down"), (absent, "absent")) if names]
    return "; ".join(parts)


def _answer(status: int, retry_after: str | None, said: dict[str, Any]) -> ListenerAnswer:
    wish = _seconds(retry_after) or _seconds(said.get("retry_after_s"))
    state = str(said.get("state", ""))
    if state in SAID:
        return ListenerAnswer(status, wish, SAID[state], state)
    if status == 202:
        detail = f"recovery {state or 'accepted'}, run {said.get('run_id', '?')}"
        return ListenerAnswer(status, wish, detail, state, _standing(said.get("services")))
    if status == 401:
        return ListenerAnswer(
            status, wish, "the host agent refuses our token: VESTAL_TOKEN must be the one in its token file"
        )
    if status == 429:
        return ListenerAnswer(status, wish, f"the host agent asks to wait {wish:.0f} s")
    return ListenerAnswer(status, wish, f"the host agent answers {status}")


def _standing(services: object) -> dict[str, str]:
    """Those states of the listener's `services` that are understood; what else it may say is left alone."""
    told = services.items() if isinstance(services, dict) else ()
    return {str(name): state for name, state in told if isinstance(state, str) and state in SAID}


def _said(standing: Mapping[str, str], down: Iterable[str]) -> list[str]:
    """A clause, with its remedy, for each of those down that the host agent leaves alone."""
    return [f"{name}: {SAID[standing[name]]}" for name in down if name in standing]


def _seconds(value: object) -> float:
    try:
        return min(max(0.0, float(str(value))), 3600.0) if value is not None else 0.0
    except ValueError:
        return 0.0
