"""The routes."""

import json
import time
from typing import Any

from aiohttp import web

from host_agent.listener import bodies, metrics
from host_agent.listener.context import ListenerContext
from host_agent.listener.event_stream import Streams
from host_agent.listener.rate_limit import TokenBucket
from host_agent.listener.refusals import BadRequest, NotFound, TooMany
from host_agent.listener.retry_advice_cache import RetryAdviceCache
from host_agent.listener.sessions import SESSION_FOR_S
from host_agent.services import retry_advice
from host_agent.status_page.page import Page

LLM_SERVERS = ("mlx", "ollama")
JOURNAL_LIMIT = 1000
MAX_SEQ = 2**62
ACTIONS = "restart|stop|start"


class Api:
    """One method for each route."""

    def __init__(self, context: ListenerContext, port: int, cookie: str) -> None:
        self._context, self._port, self._cookie = context, port, cookie
        self._page = Page()
        self._streams = Streams(context.journal)
        self._outlooks = RetryAdviceCache(context.status_report.outlooks)
        self._starts = TokenBucket(capacity=12, refill_s=5.0)
        self._asked: set[tuple[str, str]] = set()

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/", self.page),
            web.get("/health", self.health),
            web.get("/status", self.status),
            web.post("/recover", self.recover),
            web.get("/recover/plan", self.recover_plan),
            web.post("/recover/reset", self.recover_reset),
            web.get("/recover/{run_id}", self.recover_report),
            web.post(f"/services/{{name}}/{{action:{ACTIONS}}}", self.service),
            web.get("/events", self._streams.events),
            web.get("/journal", self.journal),
            web.get("/metrics", self.metrics),
            web.post("/login-links", self.login_link),
        ]

    async def health(self, request: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def status(self, request: web.Request) -> web.Response:
        return web.json_response(await self.status_json())

    async def status_json(self) -> dict[str, Any]:
        rows = await self._context.status_report.rows()
        last, running = self._context.passes.last, self._context.passes.running
        recovery = {
            "running": running.run_id if running else None,
            "last": last.as_json() if last else None,
            "passes": self._context.passes.count,
            "next_in_s": round(max(0.0, self._context.next_pass_at - time.monotonic()), 1),
        }
        return {
            "services": {name: row.as_json() for name, row in rows.items()},
            "host": self._context.status_report.host(),
            "recovery": recovery,
            "healthy": all(row.well for row in rows.values()),
        }

    async def recover(self, request: web.Request) -> web.Response:
        body = await bodies.json_object(request)
        bodies.check_recover(body)
        remote = request.remote or "?"
        passes = self._context.passes
        if passes.running is None and (wait_s := self._starts.take(time.monotonic())):
            raise TooMany(f"Too many passes; the next may begin in {wait_s:.0f} s.", wait_s)
        report, begun = passes.request(f"asked by {remote}")
        self._note(report.run_id, remote, body, begun)
        outlooks = await self._outlooks.told()
        down = [name for name in LLM_SERVERS if body.get(name) is False]
        told = {
            "run_id": report.run_id,
            "state": "started" if begun else "joined",
            "retry_after_s": retry_advice.retry_after_s(outlooks, down),
            "services": outlooks,
        }
        return web.json_response(told, status=202)

    async def recover_plan(self, request: web.Request) -> web.Response:
        return web.json_response((await self._context.passes.dry_run()).as_json())

    async def recover_reset(self, request: web.Request) -> web.Response:
        """By hand: open breakers are closed, and what was stopped by hand is started."""
        await bodies.json_object(request)
        self._context.journal.record("recovery", "reset_requested", "by hand", remote=request.remote or "?")
        await self._context.service_control.start_all()
        return web.json_response({"state": "reset"}, status=202)

    async def recover_report(self, request: web.Request) -> web.Response:
        report = self._context.passes.report(request.match_info["run_id"])
        if report is None:
            raise NotFound("There is no such run; the last fifty are kept.")
        return web.json_response(report.as_json())

    async def service(self, request: web.Request) -> web.Response:
        name, action = request.match_info["name"], request.match_info["action"]
        self._context.service_control.begin(name, action)
        return web.json_response({"service": name, "action": action, "state": "accepted"}, status=202)

    async def journal(self, request: web.Request) -> web.Response:
        """`?since=` a number, oldest first; or `?newest=` so many."""
        if newest := request.query.get("newest"):
            count = min(whole_number(newest, "newest"), JOURNAL_LIMIT)
            return web.json_response({"events": self._context.journal.newest(count)})
        since = whole_number(request.query.get("since", "0"), "since")
        return web.json_response({"events": self._context.journal.since(since, JOURNAL_LIMIT)})

    async def metrics(self, request: web.Request) -> web.Response:
        text = metrics.text(await self.status_json())
        return web.Response(text=text, headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})

    async def page(self, request: web.Request) -> web.Response:
        """The page; with the key of a one-time link, first the cookie that its data calls need."""
        key = request.query.get("key")
        if key is None:
            return self._page.response()
        session = self._context.sessions.redeem(key, time.monotonic())
        response = web.Response(status=303, headers={"Location": "/"})
        if session:
            age_s = int(SESSION_FOR_S)
            response.set_cookie(
                self._cookie, session, httponly=True, samesite="Strict", path="/", max_age=age_s
            )
        return response

    async def login_link(self, request: web.Request) -> web.Response:
        key = self._context.sessions.make_link(time.monotonic())
        return web.json_response({"url": f"http://127.0.0.1:{self._port}/?key={key}"}, status=201)

    def _note(self, run_id: str, remote: str, body: dict[str, Any], begun: bool) -> None:
        """Who asked is in the journal once for each pass: a thousand callers are one line."""
        if begun:
            self._asked.clear()
        if (run_id, remote) in self._asked:
            return
        self._asked.add((run_id, remote))
        told = json.dumps({name: body[name] for name in ("ollama", "mlx", "ts") if name in body})
        self._context.journal.record(
            "recovery", "recovery_requested", told[:200], run_id=run_id, remote=remote
        )


def whole_number(text: str, name: str) -> int:
    """A number that a query may give; BadRequest otherwise."""
    if not text.isascii() or not text.isdigit() or int(text) > MAX_SEQ:
        raise BadRequest(f"{name} must be a whole number.")
    return int(text)
