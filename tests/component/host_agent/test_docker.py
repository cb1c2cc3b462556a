"""The Docker engine's API and events, as recorded, served by a stand-in on a real Unix socket."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp import web

from host_agent.errors import DockerUnavailable
from host_agent.journal import Journal
from host_agent.services.docker import docker_endpoint
from host_agent.services.docker.container_deaths import Death
from host_agent.services.docker.containers import Containers
from host_agent.services.docker.death_watch import DeathWatch
from host_agent.services.docker.docker_api import DockerApi
from host_agent.services.docker.docker_endpoint import Endpoint
from vestal.supervision import JsonStateStore

ID = "891758fb95b7c0ffee"


def ended(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat()


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
        # `docker stop`: the engine tells of the signal, at times only after the end
        ([event("kill", 100, signal="15"), event("die", 101, exitCode="0")], "stopped by a request", 0),
        ([event("die", 100, exitCode="0"), event("kill", 100, signal="15")], "stopped by a request", 0),
        ([event("die", 100, exitCode="137"), event("kill", 101, signal="9")], "killed by a request", 137),
        # That signal was of the run before.
        (
            [event("kill", 99, signal="15"), event("start", 100), event("die", 105, exitCode="0")],
            "ended by itself",
            0,
        ),
        ([event("kill", 99, signal="1"), event("die", 100, exitCode="0")], "ended by itself", 0),
    ],
)
async def test_death_is_explained_from_the_events_around_it(
    engine: FakeEngine, api: DockerApi, home: Path, monkeypatch, events, words: str, code: int
):
    monkeypatch.setattr("host_agent.services.docker.death_watch.LATE_EVIDENCE_S", 0.05)
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
    found = watch._explanation(Death("orchestrator", ID, 0.0, 137, stopped_by="a person"), engine.inspect)
    assert "stopped by a person" in found.sentence
    journal.close()


@pytest.fixture
async def containers(
    engine: FakeEngine, api: DockerApi, home: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Containers]:
    monkeypatch.setattr("host_agent.services.docker.death_watch.LATE_EVIDENCE_S", 0.2)
    monkeypatch.setenv("VESTAL_HOME", str(home))
    journal = Journal(home / "journal.db")
    compose = SimpleNamespace(project="vestal", image="none")
    made = Containers(api, compose, journal, JsonStateStore(home / "state.json"))  # type: ignore[arg-type]
    following = asyncio.create_task(made.deaths.run())
    yield made
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)
    journal.close()


def _end(engine: FakeEngine, code: int, at: float) -> None:
    engine.inspect["State"] = {
        "Status": "exited",
        "Running": False,
        "ExitCode": code,
        "FinishedAt": ended(at),
        "OOMKilled": False,
    }


def _run_again(engine: FakeEngine) -> None:
    state: Any = engine.inspect["State"]
    state |= {"Status": "running", "Running": True, "ExitCode": 0}  # FinishedAt stays


async def _until_heard(containers: Containers, engine: FakeEngine, *events: dict[str, Any]) -> None:
    for happened in events:
        engine.events.put_nowait(happened)
    async with asyncio.timeout(5):
        while containers.deaths.told(engine.inspect) is None:  # noqa: ASYNC110 - a table is read
            await asyncio.sleep(0.01)


async def test_fresh_look_at_what_was_just_killed_waits_for_the_evidence(
    containers: Containers, engine: FakeEngine
):
    """`docker kill` and at once POST /recover said "SIGKILL, cause unknown": the evidence came 1 s later."""
    await containers.rows()
    now = time.time()
    _end(engine, 137, now)
    looking = asyncio.create_task(containers.rows(fresh=True))
    engine.events.put_nowait(event("die", now, exitCode="137"))
    engine.events.put_nowait(event("kill", now, signal="9"))
    assert "killed by a request" in (await looking)["orchestrator"].detail


async def test_row_tells_the_cause_of_the_last_end_and_not_of_the_one_before(
    containers: Containers, engine: FakeEngine
):
    """`docker kill`, heal, `docker stop`, POST /recover gave the cause of the kill."""
    first = time.time() - 20
    _end(engine, 137, first)
    await _until_heard(
        containers, engine, event("kill", first, signal="9"), event("die", first, exitCode="137")
    )
    assert "killed by a request" in (await containers.rows(fresh=True))["orchestrator"].detail
    _run_again(engine)
    assert (await containers.rows(fresh=True))["orchestrator"].detail == "", "it is ready: old news"
    second = time.time()
    _end(engine, 0, second)
    assert containers.deaths.told(engine.inspect) is None
    await _until_heard(
        containers,
        engine,
        event("start", first + 5),
        event("kill", second, signal="15"),
        event("die", second, exitCode="0"),
    )
    assert "stopped by a request" in (await containers.rows(fresh=True))["orchestrator"].detail
    engine.inspect["Id"] = "another container"
    assert containers.deaths.told(engine.inspect) is None, "made anew: that end was not its own"


async def test_fresh_look_sees_a_pause_that_the_cache_does_not(containers: Containers, engine: FakeEngine):
    """`vestal status; docker pause; POST /recover` said healthy."""
    assert (await containers.rows())["orchestrator"].well
    state: Any = engine.inspect["State"]
    state |= {"Status": "paused"}
    row = (await containers.rows(fresh=True))["orchestrator"]
    assert row.extra["status"] == "paused"
    assert not row.well


async def test_unhealthy_event_is_passed_on_by_itself(containers: Containers, engine: FakeEngine):
    engine.events.put_nowait(event("health_status: unhealthy", 100))
    async with asyncio.timeout(5):
        assert await containers.deaths.calls_for_a_pass.get() == "Docker calls orchestrator unhealthy"


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
