"""Run the agent's HTTP listener within the test, with one fake service in place of gateway and
orchestrator.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import aiohttp
from aiohttp import web

from host_agent.history.history import History
from host_agent.history.store import HistoryStore
from host_agent.incidents import Incidents
from host_agent.journal import Journal
from host_agent.listener.context import ListenerContext
from host_agent.listener.proxy.proxied_routes import Upstream
from host_agent.listener.proxy.routes import Upstreams
from host_agent.listener.server import Listener
from host_agent.listener.sessions import Sessions
from host_agent.recovery.restart_budget import RestartBudget
from host_agent.services import NAMES
from host_agent.services.service_status import ServiceStatus
from vestal.config import load
from vestal.supervision import State
from vestal.web.listening_sockets import InheritedSockets

TOKEN = "secret"
MAX_SERVICE_BODY_BYTES = 16 * 1024 * 1024


class ChangeableStatusReport:
    """Reports every service in `state`, and counts its calls."""

    def __init__(self) -> None:
        self.state, self.looks, self.uptime_s = State.READY, 0, 0.0

    async def service_statuses(self) -> dict[str, ServiceStatus]:
        self.looks += 1
        self.uptime_s += 1
        return {name: ServiceStatus(self.state, uptime_s=self.uptime_s) for name in NAMES}

    async def retry_advice(self) -> dict[str, Any]:
        return {}

    def host(self) -> dict[str, Any]:
        return {"memory": {"total_bytes": 2, "available_bytes": 1}}


@asynccontextmanager
async def page_listener(
    home: Path,
    free_port: Callable[[], int],
    answer: Callable[[web.Request], Awaitable[web.StreamResponse]],
) -> AsyncIterator[SimpleNamespace]:
    """Run the listener, and a fake service that answers with `answer`; yield an HTTP client that sends the
    token.
    """
    port, service_port = free_port(), free_port()
    config = load({"HOME": str(home), "VESTAL_HOME": str(home), "VESTAL_AGENT_PORT": str(port)}, home)
    config.home.prepare()
    app = web.Application(client_max_size=MAX_SERVICE_BODY_BYTES)
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", service_port).start()
    journal, report, nothing = Journal(config.home.journal_db), ChangeableStatusReport(), cast(Any, None)
    clock = SimpleNamespace(now=0.0)
    passes: Any = SimpleNamespace(last=None, running=None, count=0)
    async with aiohttp.ClientSession() as session:
        upstreams = Upstreams(session, dict.fromkeys(Upstream, service_port), TOKEN)
        history = History(journal, HistoryStore(journal), 10.0, monotonic=lambda: clock.now)
        context = ListenerContext(
            status_report=cast(Any, report),
            passes=passes,
            restart_budget=RestartBudget(),
            journal=journal,
            service_control=nothing,
            sessions=Sessions(TOKEN),
            upgrades=nothing,
            upstreams=upstreams,
            incidents=Incidents(journal),
            history=history,
        )
        listener = Listener(config, TOKEN, context, journal, InheritedSockets())
        await listener.start()
        base = f"http://127.0.0.1:{port}"
        headers = {"Authorization": f"Bearer {TOKEN}"}
        async with aiohttp.ClientSession(base, headers=headers) as client:
            yield SimpleNamespace(
                client=client,
                clock=clock,
                base=base,
                cookie=f"vestal_{port}",
                context=context,
                journal=journal,
                listener=listener,
                report=report,
                runner=runner,
            )
        await listener.stop()
    await runner.cleanup()
    journal.close()
