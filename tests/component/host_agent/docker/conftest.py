"""A stand-in for the Docker engine on a real Unix socket: recorded answers, and one container."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from host_agent.services.docker import container_activity
from host_agent.services.docker.docker_api import DockerApi

ID = "891758fb95b7c0ffee"
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def event(action: str, ts: float, **attributes: str) -> dict[str, Any]:
    """An event as the engine sends it."""
    named = {"com.docker.compose.service": "orchestrator", **attributes}
    return {"Type": "container", "Action": action, "time": ts, "Actor": {"ID": ID, "Attributes": named}}


def answer(body: Any, status: int = 200) -> web.Response:
    """JSON under the very content type that the engine gives it, without a charset."""
    raw = json.dumps(body).encode()
    return web.Response(body=raw, content_type="application/json", status=status)


class FakeEngine:
    """One container and a stream of events. `misbehave` replaces every answer but that to GET /version."""

    def __init__(self) -> None:
        self.events: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.api_version = "1.41"
        self.misbehave: Handler | None = None
        self.requests: list[str] = []
        self.inspect = {
            "Id": ID,
            "Config": {"Labels": {"com.docker.compose.service": "orchestrator"}},
            "HostConfig": {"Memory": 2 * 1024**3},
            "State": {"Status": "running", "Running": True, "OOMKilled": False, "ExitCode": 0},
        }

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/version", self._version)
        versioned = {
            "/version": self._version,
            "/containers/json": self._list,
            "/containers/{id}/json": self._inspect,
            "/containers/{id}/{action}": self._act,
            "/images/json": self._images,
            "/events": self._events,
        }
        for path, handler in versioned.items():
            app.router.add_route("*", "/{version:v[0-9.]+}" + path, self._checked(handler))
        return app

    def end_container(self, exit_code: int, at: float) -> None:
        """Let `docker inspect` say that the container ended."""
        self.inspect["State"] = {
            "Status": "exited",
            "Running": False,
            "ExitCode": exit_code,
            "FinishedAt": datetime.fromtimestamp(at, UTC).isoformat(),
            "OOMKilled": False,
        }

    def run_container_again(self) -> None:
        """Let `docker inspect` say that the container runs; the time of its last end stays."""
        state: Any = self.inspect["State"]
        state |= {"Status": "running", "Running": True, "ExitCode": 0}

    def _checked(self, handler: Handler) -> Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            version = request.match_info["version"]
            if version != f"v{self.api_version}":
                sentence = f"client version {version} is too old."
                return answer({"message": sentence}, status=400)
            self.requests.append(request.path_qs.removeprefix(f"/{version}"))
            return await (self.misbehave or handler)(request)

        return handle

    async def _version(self, request: web.Request) -> web.Response:
        return answer({"Version": "20.10.24", "ApiVersion": self.api_version})

    async def _list(self, request: web.Request) -> web.Response:
        assert json.loads(request.query["filters"]) == {"label": ["com.docker.compose.project=vestal"]}
        return answer([{"Id": ID}, {"Id": "gone"}])

    async def _inspect(self, request: web.Request) -> web.Response:
        if request.match_info["id"] == ID:
            return answer(self.inspect)
        return answer({"message": "No such container: gone"}, status=404)

    async def _images(self, request: web.Request) -> web.Response:
        (name,) = json.loads(request.query["filters"])["reference"]
        return answer([{"Id": "sha256:1"}] if name == "built:local" else [])

    async def _events(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        while True:
            await response.write(json.dumps(await self.events.get()).encode() + b"\n")

    async def _act(self, request: web.Request) -> web.Response:
        if request.match_info["action"] == "top":
            assert request.query["ps_args"] == container_activity.PS_ARGUMENTS
            rows = [["4711", "Ssl", "00:00:12"], ["4800", "S", "00:01:00"]]
            return answer({"Titles": ["PID", "STAT", "TIME"], "Processes": rows})
        if request.match_info["action"] == "unpause":
            return answer({"message": "Container is not paused"}, status=500)
        return web.Response(status=204)


@pytest.fixture
async def engine(home: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[FakeEngine]:
    made = FakeEngine()
    runner = web.AppRunner(made.app(), shutdown_timeout=0.1)
    await runner.setup()
    await web.UnixSite(runner, str(home / "docker.sock")).start()
    monkeypatch.setenv("DOCKER_HOST", f"unix://{home / 'docker.sock'}")
    yield made
    await runner.cleanup()


WITHIN_S = 30.0
"""What a test waits for comes within this time, unless the agent hangs."""


@pytest.fixture
async def api() -> AsyncIterator[DockerApi]:
    made = DockerApi(timeout_s=WITHIN_S)
    yield made
    await made.close()
