"""The listener, the gateway and the orchestrator as small servers in the test's process, with one token."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from host_agent.incidents import Incidents
from host_agent.journal import Journal
from host_agent.listener.context import ListenerContext
from host_agent.listener.server import Listener
from host_agent.listener.sessions import Sessions
from host_agent.recovery.restart_budget import RestartBudget
from mlx_server.gateway.app import create_app
from mlx_server.gateway.connections.listeners import Listeners
from mlx_server.gateway.dialects.context import GatewayContext
from mlx_server.gateway.installed_models import InstalledModels
from mlx_server.gateway.requests.dispatcher import Dispatcher
from mlx_server.gateway.requests.table.engine_wait import RequestLimits
from mlx_server.gateway.requests.table.request_table import RequestTable
from mlx_server.gateway.telemetry import Telemetry
from orchestrator.api.app import make_app
from vestal.config import Config, load
from vestal.supervision import SystemClock
from vestal.web.aiohttp_runner import JsonAppRunner
from vestal.web.listening_sockets import InheritedSockets

TOKEN = "the-right-token"
MAX_BODY_BYTES = 64 * 1024
LAN_ADDRESS = "192.0.2.7"  # a connection to it needs the gateway's API key


@dataclass
class Service:
    """A service that listens. A POST of `body` to `path` is answered with the status and code `accepted`."""

    name: str
    port: int
    path: str
    body: dict[str, Any]
    accepted: tuple[int, str]
    open_path: str = "/health"
    done: list[Any] = field(default_factory=list)  # what requests have caused

    async def exchange(self, raw: bytes) -> Response:
        """Send `raw`, and read all that comes back until the service closes the connection."""
        async with asyncio.timeout(60):
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            writer.write(raw)
            received = b""
            try:
                while part := await reader.read(65536):
                    received += part
            except ConnectionResetError:
                pass  # what it had not read is lost, after its response
            writer.close()
        return Response.parse(received)

    async def ask(
        self,
        method: str = "POST",
        path: str | None = None,
        body: bytes | None = None,
        *more: tuple[bytes, bytes],
        **changed: bytes | None,
    ) -> Response:
        """Send a request that is accepted but for `body`, the headers in `more`, and those `changed`."""
        sent = json.dumps(self.body).encode() if body is None else body
        headers: dict[str, bytes | None] = {
            "Host": f"127.0.0.1:{self.port}".encode(),
            "Authorization": b"Bearer " + TOKEN.encode(),
            "Content-Type": b"application/json",
            "Content-Length": str(len(sent)).encode(),
            "Connection": b"close",
        }
        headers |= {name.replace("_", "-"): value for name, value in changed.items()}
        lines = [f"{method} {self.path if path is None else path} HTTP/1.1".encode()]
        lines += [name.encode() + b": " + value for name, value in headers.items() if value is not None]
        lines += [name + b": " + value for name, value in more]
        return await self.exchange(b"\r\n".join([*lines, b"", sent]))


@dataclass(frozen=True)
class Response:
    status: int
    headers: dict[str, str]
    body: bytes

    @staticmethod
    def parse(received: bytes) -> Response:
        head, _, body = received.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        return Response(int(first.split()[1]), headers, body)

    @property
    def code(self) -> str:
        """Return the code in the envelope of the service; "" if the request was accepted."""
        if self.status < 400:
            return ""
        answer = json.loads(self.body)
        return str(answer["code"] if isinstance(answer["error"], str) else answer["error"]["code"])


@asynccontextmanager
async def listener(home: Path, port: int) -> AsyncIterator[Service]:
    service = Service("listener", port, "/recover", {"mlx": False}, (202, ""))
    config = _config(home, VESTAL_AGENT_PORT=str(port))

    def request_pass(cause: str) -> tuple[Any, bool]:
        service.done.append(cause)
        return SimpleNamespace(run_id="r1"), True

    async def nothing() -> dict[str, Any]:
        return {}

    status_report: Any = SimpleNamespace(retry_advice=nothing)
    passes: Any = SimpleNamespace(running=True, request=request_pass, report=lambda run_id: None)
    journal = Journal(config.home.journal_db)
    none: Any = SimpleNamespace(session=None, ports={"gateway": 0})
    incidents = Incidents(journal)
    context = ListenerContext(
        status_report=status_report,
        passes=passes,
        restart_budget=RestartBudget(),
        journal=journal,
        service_control=none,
        sessions=Sessions(TOKEN),
        upgrades=none,
        upstreams=none,
        incidents=incidents,
        history=none,
    )
    server = Listener(config, TOKEN, context, journal, InheritedSockets())
    await server.start()
    yield service
    await server.stop()
    journal.close()


@asynccontextmanager
async def orchestrator(port: int) -> AsyncIterator[Service]:
    service = Service("orchestrator", port, "/tasks", {"goal": "x"}, (201, ""))

    async def submit(goal: str, *_: object) -> str:
        service.done.append(goal)
        return "t1"

    async def nothing(which: object) -> None:
        return None

    container: Any = SimpleNamespace(
        config=SimpleNamespace(token=TOKEN, bind="127.0.0.1"),
        agents={"lead": None},
        board=SimpleNamespace(backends=()),
        database=SimpleNamespace(failure=lambda error: None),
        tasks=SimpleNamespace(submit=submit, list=nothing, get=nothing),
    )
    runner = JsonAppRunner(
        make_app(container, cast(Any, SimpleNamespace(last=None, cycles=0, database_failure="")))
    )
    await runner.setup()
    await runner.listen("127.0.0.1", port)
    yield service
    await runner.cleanup()


@asynccontextmanager
async def gateway(home: Path, port: int) -> AsyncIterator[Service]:
    """The gateway, to which every connection seems to have come over the network."""
    service = Service(
        "gateway", port, "/api/show", {"model": "none"}, (404, "model_not_found"), "/api/version"
    )
    config = _config(
        home,
        VESTAL_MLX_PORT=str(port),
        VESTAL_MLX__API_KEY=TOKEN,
        VESTAL_MLX__MAX_BODY_BYTES=str(MAX_BODY_BYTES),
    )
    clock = SystemClock()
    with (home / "gateway.log").open("w") as log:
        telemetry = Telemetry(clock.wall, log)
        dispatcher = Dispatcher(RequestTable(RequestLimits(1, 1, 1.0)), clock, telemetry)
        context = GatewayContext(config, clock, dispatcher, InstalledModels(config, clock))
        app = create_app(context, cast(Any, None), telemetry)

        async def from_network(scope: Any, receive: Any, send: Any) -> None:
            await app({**scope, "server": (LAN_ADDRESS, port)}, receive, send)

        listeners = Listeners(config, telemetry)
        listeners.bind()
        listeners.serve(cast(Any, from_network))
        yield service
        await listeners.stop()


def _config(home: Path, **env: str) -> Config:
    config = load({"HOME": str(home), "VESTAL_HOME": str(home), **env}, home)
    config.home.prepare()
    return config
