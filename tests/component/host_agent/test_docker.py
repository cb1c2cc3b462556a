"""The Docker engine's API and events, as recorded, served by a stand-in on a real Unix socket."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from host_agent.errors import DockerUnavailable
from host_agent.journal import Journal
from host_agent.services import docker_endpoint
from host_agent.services.death_watch import DeathWatch
from host_agent.services.docker_api import DockerApi
from host_agent.services.docker_endpoint import Endpoint

ID = "891758fb95b7c0ffee"


def event(action: str, ts: float, **attributes: str) -> dict[str, Any]:
    named = {"com.docker.compose.service": "orchestrator", **attributes}
    return {"Type": "container", "Action": action, "time": ts, "Actor": {"ID": ID, "Attributes": named}}


class FakeEngine:
    """One container, and the events it is told to send."""

    def __init__(self) -> None:
        self.events: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.inspect = {
            "Id": ID,
            "Config": {"Labels": {"com.docker.compose.service": "orchestrator"}},
            "HostConfig": {"Memory": 2 * 1024**3},
            "State": {"Status": "running", "Running": True, "OOMKilled": False, "ExitCode": 0},
        }
        self.asked: list[str] = []

    def app(self) -> web.Application:
        app = web.Application()
        app.add_routes(
            [
                web.get("/version", self._version),
                web.get("/containers/json", self._list),
                web.get("/containers/{id}/json", self._inspect),
                web.get("/events", self._events),
                web.post("/containers/{id}/{action}", self._act),
            ]
        )
        return app

    async def _version(self, request: web.Request) -> web.Response:
        return web.json_response({"Version": "20.10.24"})

    async def _list(self, request: web.Request) -> web.Response:
        assert json.loads(request.query["filters"]) == {"label": ["com.docker.compose.project=vestal"]}
        return web.json_response([{"Id": ID}, {"Id": "gone"}])

    async def _inspect(self, request: web.Request) -> web.Response:
        if request.match_info["id"] == ID:
            return web.json_response(self.inspect)
        return web.json_response({"message": "No such container: gone"}, status=404)

    async def _events(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(json.dumps(await self.events.get()).encode() + b"\n")

    async def _act(self, request: web.Request) -> web.Response:
        self.asked.append(request.path)
        if request.match_info["action"] == "unpause":
            return web.json_response({"message": "Container is not paused"}, status=500)
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


@pytest.fixture
async def api() -> AsyncIterator[DockerApi]:
    made = DockerApi()
    yield made
    await made.close()


async def test_engine_is_asked_over_its_socket(engine: FakeEngine, api: DockerApi):
    assert await api.version() == "20.10.24"
    assert [entry["Id"] for entry in await api.containers("vestal")] == [ID], "one went in between"
    await api.act(ID, "stop", t="20")
    assert engine.asked == [f"/containers/{ID}/stop"]


async def test_refusal_of_the_engine_is_told_in_its_words(engine: FakeEngine, api: DockerApi):
    with pytest.raises(DockerUnavailable, match="Container is not paused"):
        await api.act(ID, "unpause")


async def test_engine_that_is_away_is_a_sentence(api: DockerApi, home: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DOCKER_HOST", f"unix://{home / 'nothing.sock'}")
    with pytest.raises(DockerUnavailable, match="does not answer"):
        await api.version()


@pytest.mark.parametrize(
    ("events", "words", "code"),
    [
        ([event("oom", 100), event("die", 100, exitCode="137")], "over its limit of 2.0 GiB", 137),
        ([event("die", 100, exitCode="137"), event("oom", 101)], "over its limit of 2.0 GiB", 137),
        ([event("die", 100, exitCode="137")], "SIGKILL, cause unknown", 137),
        ([event("kill", 100, signal="9"), event("die", 100, exitCode="137")], "request to the Docker", 137),
        ([event("die", 100, exitCode="1")], "ended with an error", 1),
    ],
)
async def test_death_is_explained_from_the_events_around_it(
    engine: FakeEngine, api: DockerApi, home: Path, monkeypatch, events, words: str, code: int
):
    monkeypatch.setattr("host_agent.services.death_watch.LATE_EVIDENCE_S", 0.05)
    journal = Journal(home / "journal.db")
    watch = DeathWatch(api, "vestal", journal, on_change=lambda: None)
    following = asyncio.create_task(watch.run())
    with journal.follow() as entries:
        for happened in events:
            engine.events.put_nowait(happened)
        async with asyncio.timeout(5):
            while (entry := await entries.get()) is None or entry["event"] != "container_died":
                pass
    assert entry["component"] == "orchestrator"
    assert entry["fields"]["exit_code"] == code
    assert words in entry["cause"]
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)
    journal.close()


async def test_our_own_stop_is_said_to_be_ours(engine: FakeEngine, api: DockerApi, home: Path):
    journal = Journal(home / "journal.db")
    watch = DeathWatch(api, "vestal", journal, on_change=lambda: None)
    watch.expect_stop("orchestrator", "a person")
    found = watch._explanation("orchestrator", ID, 137, 0.0, engine.inspect)
    assert "stopped by a person" in found.sentence
    journal.close()


def test_context_in_use_names_the_socket(tmp_path: Path):
    folder = tmp_path / ".docker"
    # sha256 of "desktop-linux", as the docker command names the folder
    meta = folder / "contexts/meta/fe9c6bd7a66301f49ca9b6a70b217107cd1284598bfc254700c989b916da791e"
    meta.mkdir(parents=True)
    (folder / "config.json").write_text('{"currentContext": "desktop-linux"}')
    host = "unix:///Users/ada/.docker/run/docker.sock"
    (meta / "meta.json").write_text(json.dumps({"Endpoints": {"docker": {"Host": host}}}))
    found = docker_endpoint.find_endpoint({"HOME": str(tmp_path)})
    assert found == Endpoint(socket="/Users/ada/.docker/run/docker.sock")


@pytest.mark.parametrize(
    ("address", "endpoint"),
    [
        ("unix:///x.sock", Endpoint(socket="/x.sock")),
        ("tcp://1.2.3.4:2375", Endpoint(url="http://1.2.3.4:2375")),
        ("ssh://host", None),
    ],
)
def test_docker_host_is_followed(address: str, endpoint: Endpoint | None):
    assert docker_endpoint.find_endpoint({"DOCKER_HOST": address}) == endpoint
