"""The agent's calls to the Docker engine, and to one that is slow, gone, or not a Docker engine at all."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from host_agent.errors import DockerUnavailable
from host_agent.services.docker import container_activity
from host_agent.services.docker.docker_api import DockerApi
from tests.component.host_agent.docker.conftest import ID, WITHIN_S, FakeEngine, Handler, event
from tests.services.docker_command import docker, python_image


def answering(body: str | bytes, content_type: str = "application/json", status: int = 200) -> Handler:
    """Every answer has this body."""

    async def handle(request: web.Request) -> web.StreamResponse:
        raw = body if isinstance(body, bytes) else body.encode()
        return web.Response(body=raw, content_type=content_type, status=status)

    return handle


async def never_answering(request: web.Request) -> web.StreamResponse:
    await asyncio.Event().wait()
    raise AssertionError


async def resetting(request: web.Request) -> web.StreamResponse:
    """The connection is cut in the middle of the body."""
    response = web.StreamResponse(headers={"Content-Type": "application/json", "Content-Length": "1000"})
    await response.prepare(request)
    await response.write(b'{"time": 100}\n')
    assert request.transport
    request.transport.abort()
    return response


async def received(api: DockerApi) -> list[dict[str, Any]]:
    return [happened async for happened in api.events("vestal")]


async def test_docker_version_returns_the_engines_version(engine: FakeEngine, api: DockerApi):
    assert await api.version() == "20.10.24"


async def test_docker_container_removed_during_the_listing_is_left_out(engine: FakeEngine, api: DockerApi):
    assert [record["Id"] for record in await api.containers("vestal")] == [ID]


async def test_docker_container_that_cannot_be_inspected_now_is_not_taken_for_a_removed_one(
    engine: FakeEngine,
):
    """A half-hung engine lists a container whose lock is held; a pass once made another container for it."""
    api = DockerApi(timeout_s=0.2)

    async def list_only(request: web.Request) -> web.StreamResponse:
        is_listing = request.path.endswith("/containers/json")
        return await (engine._list if is_listing else never_answering)(request)

    engine.misbehave = list_only
    with pytest.raises(DockerUnavailable, match=r"no answer within 0\.2 s"):
        await api.containers("vestal")
    await api.close()


async def test_docker_top_returns_the_cpu_time_of_a_containers_processes(engine: FakeEngine, api: DockerApi):
    top = await api.top(ID, container_activity.PS_ARGUMENTS)
    assert container_activity.parse_top(top, 4711).cpu_s == 72.0


async def test_docker_has_image_matches_only_the_exact_name(engine: FakeEngine, api: DockerApi):
    assert await api.has_image("built:local")
    assert not await api.has_image("other:local")


async def test_docker_stop_and_restart_send_the_grace_time(engine: FakeEngine, api: DockerApi):
    await api.stop(ID, 20)
    await api.restart(ID, 3)
    assert engine.requests == [f"/containers/{ID}/stop?t=20", f"/containers/{ID}/restart?t=3"]


async def test_action_refused_by_docker_raises_with_dockers_error_message(engine: FakeEngine, api: DockerApi):
    with pytest.raises(DockerUnavailable, match="refused to unpause the container: Container is not paused"):
        await api.unpause(ID)


async def test_docker_call_without_a_socket_raises_with_the_systems_reason(
    api: DockerApi, home: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("DOCKER_HOST", f"unix://{home / 'nothing.sock'}")
    with pytest.raises(DockerUnavailable, match=r"does not answer \(No such file or directory\)"):
        await api.version()


async def test_docker_call_to_an_unsupported_address_raises_without_connecting(
    api: DockerApi, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("DOCKER_HOST", "ssh://elsewhere")
    with pytest.raises(DockerUnavailable, match="No Docker engine was found"):
        await api.version()
    with pytest.raises(DockerUnavailable, match="No Docker engine was found"):
        await received(api)


async def test_docker_call_to_a_hung_engine_raises_at_its_deadline_and_the_next_call_succeeds(
    engine: FakeEngine,
):
    api = DockerApi(timeout_s=0.2)
    engine.misbehave = never_answering
    async with asyncio.timeout(WITHIN_S):
        with pytest.raises(DockerUnavailable, match=r"no answer within 0\.2 s"):
            await api.containers("vestal")
    engine.misbehave = None
    api._timeout_s = WITHIN_S  # the engine answers from now on, but perhaps not within 0.2 s
    assert await api.containers("vestal")
    await api.close()


async def test_docker_call_after_an_api_upgrade_fails_once_and_then_uses_the_new_version(
    engine: FakeEngine, api: DockerApi
):
    await api.version()
    engine.api_version = "1.52"
    with pytest.raises(DockerUnavailable, match="too old"):
        await api.version()
    assert await api.version() == "20.10.24"


NO_ENGINE = {
    "a proxy's page": answering("<html>sign in</html>", "text/html"),
    "plain text": answering("hello", "text/plain"),
    "another object": answering('{"a": 1}'),
    "a list of numbers": answering("[1, 2]"),
    "null": answering("null"),
    "broken JSON": answering('{"a":'),
    "no UTF-8": answering(b'[{"Id": "\xff"}]'),
    "deeply nested JSON": answering("[" * 100_000),
    "an error that is a list": answering("[1]", status=500),
    "an error that is a page": answering("<h1>Bad gateway</h1>", "text/html", 502),
    "an error without a body": answering("", "text/plain", 503),
    "half a body": resetting,
}


@pytest.mark.parametrize("answer", NO_ENGINE.values(), ids=NO_ENGINE.keys())
async def test_answer_that_does_not_follow_dockers_api_raises_docker_unavailable(
    engine: FakeEngine, api: DockerApi, answer: Handler
):
    engine.misbehave = answer
    with pytest.raises(DockerUnavailable):
        await api.containers("vestal")


async def test_docker_events_are_yielded_with_dockers_timestamps(engine: FakeEngine, api: DockerApi):
    engine.events.put_nowait(event("die", 100.0, exitCode="137"))
    stream = api.events("vestal")
    async with asyncio.timeout(WITHIN_S):
        assert await anext(stream) == event("die", 100.0, exitCode="137")
    await stream.aclose()  # type: ignore[attr-defined]


async def test_docker_events_end_without_an_error_when_the_stream_ends(engine: FakeEngine, api: DockerApi):
    engine.misbehave = answering(b'{"time": 100, "Action": "die"}\n' * 2)
    assert [happened["Action"] for happened in await received(api)] == ["die", "die"]


BROKEN_STREAMS = {
    "cut off": resetting,
    "no JSON": answering("nonsense\n"),
    "no event": answering("[1]\n"),
    "no time": answering("{}\n"),
    "a time in words": answering('{"time": "noon"}\n'),
    "an endless line": answering('{"a": "' + "x" * 1_000_000 + '"}\n'),
    "refused": answering('{"message": "no"}', status=500),
}


@pytest.mark.parametrize("answer", BROKEN_STREAMS.values(), ids=BROKEN_STREAMS.keys())
async def test_docker_event_stream_that_breaks_raises_docker_unavailable_and_can_be_reopened(
    engine: FakeEngine, api: DockerApi, answer: Handler
):
    engine.misbehave = answer
    with pytest.raises(DockerUnavailable, match="events broke off"):
        await received(api)
    engine.misbehave = answering('{"time": 100}\n')
    assert len(await received(api)) == 1, "the next stream is read as if nothing had been"


async def test_reading_a_silent_docker_event_stream_ends_at_once_when_cancelled(
    engine: FakeEngine, api: DockerApi
):
    """Earlier, Docker's blocking SDK held a thread that could not be ended while the engine was silent."""
    reading = asyncio.create_task(received(api))
    async with asyncio.timeout(WITHIN_S):
        while not engine.requests:  # noqa: ASYNC110 - a list is read
            await asyncio.sleep(0.01)
    reading.cancel()
    done, _ = await asyncio.wait([reading], timeout=WITHIN_S)
    assert reading in done
    assert reading.cancelled()
    assert "DockerEvents" not in repr(asyncio.all_tasks()), "the client's own task has ended too"


@pytest.fixture
def real_container(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The name of a container of the real engine, which is also its compose project."""
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    image = python_image()
    name = f"vestal-test-{secrets.token_hex(6)}"  # an interrupted run may have left one with the same PID
    label = f"com.docker.compose.project={name}"
    docker("run", "--detach", "--network", "none", "--name", name, "--label", label, image, "sleep", "600")
    yield name
    docker("rm", "--force", name)


@pytest.mark.docker
async def test_real_docker_engine_lists_restarts_and_stops_a_container_and_sends_its_events(
    api: DockerApi, real_container: str
):
    (record,) = await api.containers(real_container)
    assert record["State"]["Running"]
    assert await api.memory_bytes() > 0
    assert await api.version()
    actions: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    async def follow() -> None:
        async for happened in api.events(real_container):
            actions.put_nowait(happened)

    following = asyncio.create_task(follow())
    began = time.time()
    async with asyncio.timeout(90):
        while actions.empty():  # the stream may not have begun yet
            await api.restart(record["Id"], 0)
        await api.stop(record["Id"], 0)
        while (happened := await actions.get())["Action"] != "die":
            pass
    assert abs(happened["time"] - began) < 100
    with pytest.raises(DockerUnavailable, match="refused to unpause"):
        await api.unpause(record["Id"])
    assert not (await api.containers(real_container))[0]["State"]["Running"]
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)
