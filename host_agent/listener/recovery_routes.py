"""The routes of recovery. They begin a recovery pass or join the running one, return its report, make a dry
run, and start the services that were stopped by hand or given up.
"""

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from aiohttp import web

from host_agent.listener.context import ListenerContext
from host_agent.listener.rate_limit import TokenBucket
from host_agent.services import retry_advice
from host_agent.services.retry_advice import RetryAdvice
from vestal.web.aiohttp_adapter import read_object
from vestal.web.http_error import HttpError

log = logging.getLogger("vestal")

LLM_SERVERS = ("mlx", "ollama")
PASSES_AT_ONCE = 12
PASS_EACH_S = 5.0
ADVICE_FRESH_S = 0.3
ADVICE_WITHIN_S = 0.5  # a caller waits 2 s in all; the pass begins without the advice
ADVICE_STALE_S = 60.0

Advice = Mapping[str, RetryAdvice]


class RecoveryRoutes:
    """Handles the routes under /recover."""

    def __init__(self, context: ListenerContext) -> None:
        self._context = context
        self._advice = RetryAdviceCache(context.status_report.retry_advice)
        self._begins = TokenBucket(capacity=PASSES_AT_ONCE, refill_s=PASS_EACH_S)
        self._recorded: set[tuple[str, str]] = set()  # (run id, client address)

    def routes(self) -> list[web.RouteDef]:
        return [
            web.post("/recover", self.begin),
            web.get("/recover/plan", self.plan),
            web.post("/recover/reset", self.reset),
            web.get("/recover/{run_id}", self.report),
        ]

    async def begin(self, request: web.Request) -> web.Response:
        """Begin a recovery pass, or join the running one. Respond with status 202, without waiting for the
        pass. The body has the pass's `run_id`, with which the client can get the report, and the retry advice
        for the client: when to ask again, and why a server will not be started now.

        Raises HttpError with status 400 if the request is invalid, 429 if too many passes were begun lately
        (a pass can be joined at any time), or 503 if the agent is stopping.
        """
        body = await read_object(request)
        check_request(body)
        remote = request.remote or "?"
        passes = self._context.passes
        begins = passes.running is None and not passes.is_closed
        if begins and (wait_s := self._begins.take(time.monotonic())):
            message = f"Too many passes were begun; the next may begin in {wait_s:.0f} s."
            raise HttpError("too_many_requests", message, retry_after_s=wait_s)
        report, begun = passes.request(f"asked by {remote}")
        self._record(report.run_id, remote, body, begun)
        advice = await self._advice.get()
        down = [name for name in LLM_SERVERS if body.get(name) is False]
        answer = {
            "run_id": report.run_id,
            "state": "started" if begun else "joined",
            "retry_after_s": retry_advice.retry_after_s(advice, down),
            "services": advice,
        }
        return web.json_response(answer, status=202)

    async def plan(self, request: web.Request) -> web.Response:
        """Return the report of a dry run, which says what a recovery pass would do now."""
        return web.json_response((await self._context.passes.dry_run()).as_json())

    async def reset(self, request: web.Request) -> web.Response:
        """Close all open breakers, start all services that a person stopped or that were given up, and let
        recovery passes again restart services that they restarted too often. Services in containers are
        started by the next recovery pass. Respond with status 202, without waiting until the services are
        ready.
        """
        await read_object(request)
        remote = request.remote or "?"
        self._context.journal.record("recovery", "reset_requested", "by hand", remote=remote)
        self._context.restart_budget.reset()
        await self._context.service_control.start_all()
        return web.json_response({"state": "reset"}, status=202)

    async def report(self, request: web.Request) -> web.Response:
        """Return the report of the recovery pass with the run id in the path; the report of a running pass is
        unfinished. Raises HttpError with status 404 if the pass is unknown.
        """
        report = self._context.passes.report(request.match_info["run_id"])
        if report is None:
            raise HttpError("not_found", "There is no such run; the newest fifty are kept.")
        return web.json_response(report.as_json())

    def _record(self, run_id: str, remote: str, body: dict[str, Any], begun: bool) -> None:
        """Record in the journal, once for each recovery pass and client, that the client at the address
        `remote` asked for the recovery pass with the id `run_id`. `begun` is True if the request began this
        pass, and False if it joined it.

        The record quotes three fields of the request's `body`, if present: `ollama` and `mlx` are False if
        the client found that server down, and `ts` is the client's time.
        """
        if begun:
            self._recorded.clear()
        if (run_id, remote) in self._recorded:
            return
        self._recorded.add((run_id, remote))
        hint = json.dumps({name: body[name] for name in ("ollama", "mlx", "ts") if name in body})
        self._context.journal.record(
            "recovery", "recovery_requested", hint[:200], run_id=run_id, remote=remote
        )


def check_request(body: dict[str, Any]) -> None:
    """Raise HttpError if a field of the request's body has the wrong type: `ollama` and `mlx` must be
    booleans, and `ts` a number or a string. Each of the three may be missing or null.
    """
    for name in LLM_SERVERS:
        if not isinstance(body.get(name), bool | None):
            raise HttpError("invalid_request", f"{name} must be true or false.")
    ts = body.get("ts")
    if isinstance(ts, bool) or not isinstance(ts, int | float | str | None):
        raise HttpError("invalid_request", "ts must be a number or a string.")


class RetryAdviceCache:
    """Caches the retry advice for MLX and Ollama, so that simultaneous clients share one call of `look`,
    which reads the advice.
    """

    def __init__(self, look: Callable[[], Awaitable[Advice]]) -> None:
        self._look = look
        self._task: asyncio.Task[None] | None = None
        self._answer_due = asyncio.Event()  # a thousand callers share one timer
        self._answer_due.set()
        self._last: Advice = {}
        self._looked_at = float("-inf")

    async def get(self) -> Advice:
        """Return the retry advice: for `mlx` and `ollama`, the reason why no recovery pass will start the
        server now. A server that is healthy, or that a pass can start, has no entry.

        Advice older than ADVICE_FRESH_S is read again by `look`, the function that the constructor was given.
        If that takes longer than ADVICE_WITHIN_S, return the last advice, or an empty mapping if the last
        advice is older than ADVICE_STALE_S.
        """
        if self._age_s() <= ADVICE_FRESH_S:
            return self._last
        if self._answer_due.is_set():
            self._begin_waiting()
        await self._answer_due.wait()
        return self._last if self._age_s() <= ADVICE_STALE_S else {}

    def _begin_waiting(self) -> None:
        """Call `look`, the function that reads the advice, in a task, unless such a task still runs. In both
        cases, replace `_answer_due` by a new event, which is set when the task ends, or after ADVICE_WITHIN_S
        if that is sooner.
        """
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._update(), name="retry advice")
        due = self._answer_due = asyncio.Event()
        timer = asyncio.get_running_loop().call_later(ADVICE_WITHIN_S, due.set)

        def end(task: asyncio.Task[None]) -> None:
            timer.cancel()
            due.set()

        self._task.add_done_callback(end)

    def _age_s(self) -> float:
        return time.monotonic() - self._looked_at

    async def _update(self) -> None:
        try:
            self._last = await self._look()
        except Exception:  # a pass begins whether or not there is advice
            log.warning("the retry advice could not be read", exc_info=True)
            self._last = {}
        self._looked_at = time.monotonic()
