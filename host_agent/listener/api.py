"""The table of the listener's routes, and the handlers of the routes that have no module of their own."""

import time
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from host_agent.listener.commands.routes import CommandRoutes
from host_agent.listener.context import ListenerContext
from host_agent.listener.event_stream import EventStreams, sequence_number
from host_agent.listener.history_routes import HistoryRoutes
from host_agent.listener.incident_routes import IncidentRoutes
from host_agent.listener.live.routes import LiveRoutes
from host_agent.listener.proxy.routes import ProxyRoutes
from host_agent.listener.recovery_routes import RecoveryRoutes
from host_agent.listener.sessions import SESSION_FOR_S
from host_agent.listener.upgrade_routes import UpgradeRoutes
from host_agent.services import MLX_ENGINE
from host_agent.services.status.verdict import verdict
from host_agent.status_page.page import Page
from vestal.web.aiohttp_adapter import read_object

JOURNAL_LIMIT = 1000
ACTIONS = "restart|stop|start"


class Api:
    """Provides all routes of the listener, and handles those that have no module of their own.

    `port` is the listener's port, and `cookie` the name of the session cookie. `headers` are added to the
    responses that are streamed.
    """

    def __init__(self, context: ListenerContext, port: int, cookie: str, headers: Mapping[str, str]) -> None:
        self._context, self._port, self._cookie = context, port, cookie
        self._page = Page()
        self._streams = EventStreams(context.journal)
        self._recovery = RecoveryRoutes(context)
        self._incidents = IncidentRoutes(context.incidents)
        self._upgrade = UpgradeRoutes(context)
        self._commands = CommandRoutes()
        self._history = HistoryRoutes(context.history, context.incidents)
        self._live = LiveRoutes(context, self._status, headers)
        self._proxy = ProxyRoutes(context.upstreams, headers)

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/", self.page),
            web.get("/assets/{path:.+}", self.asset),
            web.get("/health", self.health),
            web.get("/status", self.status),
            *self._recovery.routes(),
            *self._upgrade.routes(),
            *self._commands.routes(),
            *self._history.routes(),
            *self._live.routes(),
            *self._proxy.routes(),
            web.post(f"/services/{MLX_ENGINE}/kill", self.kill_engine),
            *self._incidents.routes(),
            web.post(f"/services/{{name}}/{{action:{ACTIONS}}}", self.service),
            web.get("/events", self._streams.events, allow_head=False),
            web.get("/journal", self.journal),
            web.get("/metrics", self.metrics),
            web.post("/login-links", self.login_link),
        ]

    def close_streams(self) -> None:
        """End all streams, so that the listener stops without waiting for their clients."""
        self._context.journal.disconnect_followers()
        self._live.close()
        self._proxy.close()

    async def health(self, request: web.Request) -> web.Response:
        """Answer 200 while the agent itself is alive. /status reports on the services."""
        return web.json_response({"status": "ok"})

    async def status(self, request: web.Request) -> web.Response:
        return web.json_response(await self._status())

    async def _status(self) -> dict[str, Any]:
        services = await self._context.status_report.service_statuses()
        last, running = self._context.passes.last, self._context.passes.running
        recovery = {
            "running": running.run_id if running else None,
            "last": last.as_json() if last else None,
            "passes": self._context.passes.count,
            "next_in_s": round(max(0.0, self._context.next_pass_at - time.monotonic()), 1),
        }
        host = self._context.status_report.host()
        return {
            "verdict": verdict(services, host),
            "services": {name: service.as_json() for name, service in services.items()},
            "host": host,
            "recovery": recovery,
            "healthy": all(service.healthy for service in services.values()),
        }

    async def service(self, request: web.Request) -> web.Response:
        """Begin the action that the path names (`restart`, `stop` or `start`) for the service that the path
        names. Answer 202 without waiting for the result, which the journal records.

        Raises UnknownService if there is no such service, NotPossible if the service does not allow the
        action, or HttpError with status 503 if the agent is stopping, or 400 if there is a body that is not a
        JSON object.
        """
        await read_object(request, may_be_empty=True)
        name, action = request.match_info["name"], request.match_info["action"]
        self._context.service_control.request(name, action)
        return web.json_response({"service": name, "action": action, "state": "accepted"}, status=202)

    async def kill_engine(self, request: web.Request) -> web.Response:
        """Kill the MLX engine without warning, like a crash, so that a person can see how its requests
        survive. Raises HttpError with status 400 if there is a body that is not a JSON object.
        """
        await read_object(request, may_be_empty=True)
        await self._context.service_control.kill_engine()
        return web.json_response({"service": MLX_ENGINE, "action": "kill", "state": "accepted"}, status=202)

    async def journal(self, request: web.Request) -> web.Response:
        """Return events of the journal, oldest first: the newest N with `?newest=N`, else the first ones with
        numbers above `?since=` (by default 0).

        At most JOURNAL_LIMIT events are returned; a client gets the next ones with the number of the last as
        `?since=`. Raises HttpError with status 400 if a parameter is not a whole number.
        """
        if newest := request.query.get("newest"):
            count = min(sequence_number(newest, "newest"), JOURNAL_LIMIT)
            return web.json_response({"events": self._context.journal.newest(count)})
        since = sequence_number(request.query.get("since", "0"), "since")
        return web.json_response({"events": self._context.journal.since(since, JOURNAL_LIMIT)})

    async def metrics(self, request: web.Request) -> web.Response:
        from host_agent.listener import metrics  # at the first call: it takes over 1 MB of memory

        text = metrics.text(await self._status())
        return web.Response(text=text, headers={"Content-Type": metrics.CONTENT_TYPE})

    async def page(self, request: web.Request) -> web.Response:
        """Return the status page. It contains no data, so neither a token nor a session is needed.

        With `?key=` of a one-time link, redirect to the page instead, and set the cookie of a new session. If
        the key is unknown, used or expired, redirect without a cookie.
        """
        key = request.query.get("key")
        if key is None:
            return self._page.response(request)
        session = self._context.sessions.redeem(key, time.time())
        response = web.Response(status=303, headers={"Location": "/"})
        if session:
            age_s = int(SESSION_FOR_S)
            response.set_cookie(
                self._cookie, session, httponly=True, samesite="Strict", path="/", max_age=age_s
            )
        return response

    async def asset(self, request: web.Request) -> web.Response:
        """Return a file of the status page."""
        return self._page.response(request, request.match_info["path"])

    async def login_link(self, request: web.Request) -> web.Response:
        """Create a one-time link that opens the status page with a new session, and return the link's URL.

        Raises HttpError with status 400 if there is a body that is not a JSON object.
        """
        await read_object(request, may_be_empty=True)
        key = self._context.sessions.make_link(time.time())
        return web.json_response({"url": f"http://127.0.0.1:{self._port}/?key={key}"}, status=201)
