"""Report to the host agent which backend is down: POST {"ollama": bool, "mlx": bool, "ts": …}. True means
that the backend is healthy or not used; `ts` is the time in seconds since 1970.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping
from typing import Any

import aiohttp

from orchestrator.events import emit
from orchestrator.llm.backend import Backend
from orchestrator.llm.json_body import json_of
from orchestrator.recovery_webhook.policy import ListenerAnswer, ReportPace

EXPLANATIONS = {
    "recovering": "the host agent is already starting it",
    "open": "the host agent has given it up for now (`vestal recover --reset` tries again)",
    "manual_stop": "it was stopped by hand on the host (`vestal recover --reset` starts it)",
}
TIMEOUT = aiohttp.ClientTimeout(total=2.0, connect=1.0)


class RecoveryWebhook:
    """Asks the host agent to recover this machine's backends: if one of them is down, posts the health of all
    of them to `url`, with the bearer token `token`. Posts nothing if `url` is "".

    The module `policy` limits how often. `interval_s`, the interval of the health monitor, is the upper limit
    of the growing pause between two posts about one outage.
    """

    def __init__(self, session: aiohttp.ClientSession, url: str, token: str, interval_s: float) -> None:
        self._session = session
        self._url = url
        self._token = token
        self._interval_s = interval_s
        self._pace = ReportPace()
        self._posting = asyncio.Lock()
        self._not_recovering: Mapping[str, str] = {}  # backends that the last pass will not start, and why
        self.posted = 0
        self.reported: frozenset[str] = frozenset()  # backends whose outage the host agent accepted

    @property
    def next_post_in_s(self) -> float:
        """Return how many seconds remain until an outage that was already reported may be posted again; 0 if
        it may be posted now.
        """
        return max(0.0, max(self._pace.due_at, self._pace.asked_until) - time.monotonic())

    @property
    def next_mention_in_s(self) -> float:
        """Return how many seconds remain until the next mention may be posted; 0 if it may be posted now. A
        mention is a post that reports no outage, but only which backends are absent, that is, seem not to be
        installed.
        """
        return max(0.0, max(self._pace.absent_due_at, self._pace.asked_until) - time.monotonic())

    async def report(self, backends: tuple[Backend, ...]) -> str:
        """Post the health of this machine's backends to the host agent if one of them is down, or is absent
        (seems not to be installed), and if a post is due (`ReportPace.may_post`).

        Return a sentence that says what was posted and answered, or why nothing was posted. If the post
        fails, the sentence says so, and nothing is raised.
        """
        async with self._posting:  # the cycle and the monitor may see the same outage
            return await self._report(tuple(b for b in backends if b.of_this_machine))

    async def _report(self, backends: tuple[Backend, ...]) -> str:
        down = tuple(b.name for b in backends if b.down)
        absent = tuple(b.name for b in backends if b.absent)
        self._pace = self._pace.seen(down)
        if not down and not absent:
            return "all healthy, nothing to post"
        if not self._url:
            self.reported |= set(down)  # no host agent is responsible for it
            return f"{_names(down, absent)}, and no RECOVERY_WEBHOOK_URL is set"
        if not self._pace.may_post(time.monotonic(), down, absent):
            next_in_s = self.next_post_in_s if down else self.next_mention_in_s
            reasons = "; ".join(_reasons(self._not_recovering, down))
            sentence = f"{_names(down, absent)}; posted already, next in {next_in_s:.0f} s"
            return f"{sentence}; {reasons}" if reasons else sentence
        # A backend that is not used needs no healing, so it is reported as healthy.
        answer = await self._post({b.name: b.healthy or not b.used for b in backends})
        self.posted += 1
        if answer.status == 202:
            self.reported |= set(down) - set(
                answer.backends
            )  # the host agent knows these, so they are not absent
            self._not_recovering = answer.backends
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
        return "; ".join([_names(down, absent), answer.detail, *_reasons(answer.backends, down)])

    async def _post(self, health: dict[str, bool]) -> ListenerAnswer:
        headers = {"Authorization": f"Bearer {self._token}"}
        content = {**health, "ts": round(time.time(), 3)}
        try:
            async with self._session.post(self._url, json=content, headers=headers, timeout=TIMEOUT) as reply:
                body = await json_of(reply)
                return _answer(
                    reply.status, reply.headers.get("Retry-After"), body if isinstance(body, dict) else {}
                )
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            reason = str(error) or type(error).__name__
            return ListenerAnswer(0, detail=f"the host agent at {self._url} does not answer ({reason})")


def _names(down: tuple[str, ...], absent: tuple[str, ...]) -> str:
    parts = [f"{', '.join(names)} {state}" for names, state in ((down, "down"), (absent, "absent")) if names]
    return "; ".join(parts)


def _answer(status: int, retry_after: str | None, body: dict[str, Any]) -> ListenerAnswer:
    retry_after_s = _seconds(retry_after) or _seconds(body.get("retry_after_s"))
    if status == 202:
        detail = f"recovery {body.get('state') or 'accepted'}, run {body.get('run_id', '?')}"
        return ListenerAnswer(status, retry_after_s, detail, _not_recovering(body.get("services")))
    if status == 401:
        detail = "the host agent refuses this token: VESTAL_TOKEN must be the one in its token file"
        return ListenerAnswer(status, retry_after_s, detail)
    if status == 429:
        return ListenerAnswer(status, retry_after_s, f"the host agent asks to wait {retry_after_s:.0f} s")
    return ListenerAnswer(status, retry_after_s, f"the host agent answers {status}")


def _not_recovering(services: object) -> dict[str, str]:
    """Return the backends that the host agent's recovery pass will not start, each with the state that is the
    reason. `services` is the field of that name in the host agent's answer, which maps backends to their
    states. A value of another shape is ignored, and so are states that are unknown here, as from a newer
    agent.
    """
    states = services.items() if isinstance(services, dict) else ()
    return {str(name): state for name, state in states if isinstance(state, str) and state in EXPLANATIONS}


def _reasons(states: Mapping[str, str], down: Iterable[str]) -> list[str]:
    """Return a clause for each backend in `down` that the recovery pass will not start: its name, the reason,
    and the remedy if a person has to act. `states` is the result of `_not_recovering`.
    """
    return [f"{name}: {EXPLANATIONS[states[name]]}" for name in down if name in states]


def _seconds(value: object) -> float:
    try:
        return min(max(0.0, float(str(value))), 3600.0) if value is not None else 0.0
    except ValueError:
        return 0.0
