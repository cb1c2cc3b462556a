"""The state of containers and the causes of their deaths, from a stand-in engine's records and events."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp import web

from host_agent.errors import DockerUnavailable, NotPossible
from host_agent.journal import Journal
from host_agent.recovery.apply_remedies import HostRemedies
from host_agent.recovery.remedies import BringUpContainer, RestartContainer
from host_agent.recovery.restart_budget import RestartBudget
from host_agent.services.docker.containers import Containers
from host_agent.services.docker.death_watch import DeathWatch
from host_agent.services.docker.docker_api import DockerApi
from tests.component.host_agent.docker.conftest import ID, WITHIN_S, FakeEngine, answer, event
from vestal.supervision import JsonStateStore, State


@pytest.mark.parametrize(
    ("events", "words", "code"),
    [
        ([event("oom", 100), event("die", 100, exitCode="137")], "over its limit of 2.0 GiB", 137),
        ([event("die", 100, exitCode="137"), event("oom", 101)], "over its limit of 2.0 GiB", 137),
        ([event("die", 100, exitCode="137")], "SIGKILL, cause unknown", 137),
        ([event("kill", 100, signal="9"), event("die", 100, exitCode="137")], "request to the Docker", 137),
        ([event("die", 100, exitCode="1")], "ended with an error", 1),
        # `docker stop`: the engine sends the signal's event, at times only after the end
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
async def test_container_death_is_recorded_with_the_cause_shown_by_the_docker_events_around_it(
    engine: FakeEngine, api: DockerApi, home: Path, monkeypatch, events, words: str, code: int
):
    monkeypatch.setattr("host_agent.services.docker.death_watch.LATE_EVIDENCE_S", 0.05)
    journal = Journal(home / "journal.db")
    watch = DeathWatch(api, "vestal", journal, on_change=lambda: None)
    following = asyncio.create_task(watch.run())
    with journal.follow() as entries:
        for happened in events:
            engine.events.put_nowait(happened)
        async with asyncio.timeout(WITHIN_S):
            while (entry := await entries.get()) is None or entry["event"] != "container_died":
                pass
    assert entry["component"] == "orchestrator"
    assert entry["fields"]["exit_code"] == code
    assert words in entry["cause"]
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)
    journal.close()


async def refuse(request: web.Request) -> web.StreamResponse:
    return answer({"message": "not now"}, 500)


@pytest.fixture
async def containers(
    engine: FakeEngine, api: DockerApi, home: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Containers]:
    monkeypatch.setattr("host_agent.services.docker.death_watch.LATE_EVIDENCE_S", 0.2)
    # On a busy machine, more than 3 s may pass between a death and the look at it.
    monkeypatch.setattr("host_agent.services.docker.death_watch.PENDING_S", WITHIN_S)
    monkeypatch.setenv("VESTAL_HOME", str(home))
    journal = Journal(home / "journal.db")
    compose = SimpleNamespace(project="vestal", image="none")
    made = Containers(api, compose, journal, JsonStateStore(home / "state.json"))  # type: ignore[arg-type]
    following = asyncio.create_task(made.deaths.run())
    yield made
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)
    journal.close()


async def _until_explained(containers: Containers, engine: FakeEngine, *events: dict[str, Any]) -> None:
    for happened in events:
        engine.events.put_nowait(happened)
    async with asyncio.timeout(WITHIN_S):
        while containers.deaths.explanation_of(engine.inspect) is None:  # noqa: ASYNC110 - a table is read
            await asyncio.sleep(0.01)


async def test_uncached_container_status_after_a_kill_waits_for_dockers_kill_event(
    containers: Containers, engine: FakeEngine
):
    """Earlier, POST /recover right after `docker kill` said "cause unknown": the event came 1 s later."""
    await containers.observe()
    now = time.time()
    engine.end_container(137, now)
    looking = asyncio.create_task(containers.observe(fresh=True))
    engine.events.put_nowait(event("die", now, exitCode="137"))
    engine.events.put_nowait(event("kill", now, signal="9"))
    assert "killed by a request" in (await looking)["orchestrator"].detail


async def test_container_status_shows_the_cause_of_the_latest_death_and_not_of_an_earlier_one(
    containers: Containers, engine: FakeEngine
):
    """Earlier, POST /recover after a kill, a recovery and a `docker stop` gave the cause of the kill."""
    first = time.time() - 20
    engine.end_container(137, first)
    await _until_explained(
        containers, engine, event("kill", first, signal="9"), event("die", first, exitCode="137")
    )
    assert "killed by a request" in (await containers.observe(fresh=True))["orchestrator"].detail
    engine.run_container_again()
    assert (await containers.observe(fresh=True))["orchestrator"].detail == "", "it is ready: old news"
    second = time.time()
    engine.end_container(0, second)
    assert containers.deaths.explanation_of(engine.inspect) is None
    await _until_explained(
        containers,
        engine,
        event("start", first + 5),
        event("kill", second, signal="15"),
        event("die", second, exitCode="0"),
    )
    assert "stopped by a request" in (await containers.observe(fresh=True))["orchestrator"].detail
    engine.inspect["Id"] = "another container"
    assert containers.deaths.explanation_of(engine.inspect) is None, (
        "another container: that death was not its own"
    )


async def test_uncached_container_status_shows_a_pause_that_began_after_the_cached_status(
    containers: Containers, engine: FakeEngine
):
    """Earlier, POST /recover right after `docker pause` reported the container as healthy."""
    assert (await containers.observe())["orchestrator"].healthy
    state: Any = engine.inspect["State"]
    state |= {"Status": "paused"}
    status = (await containers.observe(fresh=True))["orchestrator"]
    assert status.extra["status"] == "paused"
    assert not status.healthy


async def test_unhealthy_event_of_a_container_requests_a_recovery_pass(
    containers: Containers, engine: FakeEngine
):
    engine.events.put_nowait(event("health_status: unhealthy", 100))
    async with asyncio.timeout(WITHIN_S):
        assert await containers.deaths.pass_requests.get() == "Docker calls orchestrator unhealthy"


async def test_end_of_docker_and_its_return_each_request_a_recovery_pass(
    containers: Containers, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
):
    """An outage of 10 s was once reported as one of 300 s: until the next scheduled pass."""
    monkeypatch.setattr("host_agent.services.docker.death_watch.RETRY_S", 0.05)
    while not engine.requests:  # noqa: ASYNC110 - a list is read
        await asyncio.sleep(0.01)
    engine.misbehave = refuse
    engine.events.put_nowait({"time": "noon"})  # which ends the stream
    requests = containers.deaths.pass_requests
    async with asyncio.timeout(WITHIN_S):
        assert await requests.get() == "the Docker engine's events broke off"
        await asyncio.sleep(0.2)
        assert requests.empty()
        engine.misbehave = None
        assert await requests.get() == "the Docker engine answers again"


async def test_docker_that_ends_each_stream_of_events_at_once_requests_no_recovery_pass(
    containers: Containers, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("host_agent.services.docker.death_watch.RETRY_S", 0.02)

    async def end_streams(request: web.Request) -> web.StreamResponse:
        return await (refuse if request.path.endswith("/events") else engine._version)(request)

    engine.misbehave = end_streams
    async with asyncio.timeout(WITHIN_S):
        while sum("/events" in path for path in engine.requests) < 4:
            engine.events.put_nowait({"time": "noon"})  # which ends the first stream
            await asyncio.sleep(0.01)
    assert containers.deaths.pass_requests.empty()


async def test_container_of_docker_compose_run_is_not_taken_for_its_service(
    containers: Containers, engine: FakeEngine
):
    """Its end once made a pass bring the orchestrator up, which ran all the time."""
    labels: Any = engine.inspect["Config"]
    labels["Labels"]["com.docker.compose.oneoff"] = "True"
    assert await containers.observe(fresh=True) == {}
    engine.events.put_nowait(event("health_status: unhealthy", 100, **{"com.docker.compose.oneoff": "True"}))
    engine.events.put_nowait(
        event("health_status: unhealthy", 100, **{"com.docker.compose.service": "nightly"})
    )
    async with asyncio.timeout(WITHIN_S):
        assert await containers.deaths.pass_requests.get() == "Docker calls nightly unhealthy"


def start_container(engine: FakeEngine, at: str) -> None:
    engine.inspect["State"] = {"Status": "running", "Running": True, "StartedAt": at}


async def test_stop_by_hand_ends_with_a_restart_by_hand_and_with_a_start_by_docker(
    containers: Containers, engine: FakeEngine
):
    """After a stop and a restart by hand, passes once left the container alone for ever."""
    start_container(engine, "2026-11-21T03:57:12Z")
    for restart in (True, False):
        await containers.stop_by_hand("orchestrator", "a person")
        await containers.observe(fresh=True)
        assert containers.stopped_by_hand("orchestrator"), "it has 20 s to end, and runs meanwhile"
        engine.end_container(0, 100)
        assert (await containers.observe(fresh=True))["orchestrator"].stopped_by_hand
        if restart:
            await containers.restart_by_hand("orchestrator", "a person")
        start_container(engine, f"2026-11-21T04:00:1{restart:d}Z")
        await containers.observe(fresh=True)
        assert not containers.stopped_by_hand("orchestrator")


async def test_container_that_could_not_be_stopped_by_hand_is_not_marked_as_stopped(
    containers: Containers, engine: FakeEngine
):
    async def refuse_stop(request: web.Request) -> web.StreamResponse:
        answers = {"stop": refuse, "json": engine._inspect}
        is_listing = request.path.endswith("/containers/json")
        return await (engine._list if is_listing else answers[request.path.rpartition("/")[2]])(request)

    engine.misbehave = refuse_stop
    with pytest.raises(DockerUnavailable, match="refused to stop the container"):
        await containers.stop_by_hand("orchestrator", "a person")
    assert not containers.stopped_by_hand("orchestrator")


async def test_service_without_a_container_can_be_stopped_by_hand(containers: Containers, engine: FakeEngine):
    await containers.stop_by_hand("nightly", "a person")
    assert containers.stopped_by_hand("nightly"), "no pass makes a container for it"


async def test_remedy_for_a_container_that_a_person_has_stopped_since_the_check_is_not_applied(
    containers: Containers, engine: FakeEngine
):
    """A person who stopped it while an earlier remedy took its time once saw it start again."""
    await containers.stop_by_hand("orchestrator", "a person")
    before = list(engine.requests)
    nothing: Any = None
    remedies = HostRemedies(nothing, containers, nothing, RestartBudget(), 1.0)
    for remedy in (RestartContainer("orchestrator"), BringUpContainer("orchestrator")):
        with pytest.raises(NotPossible, match="a person has stopped it meanwhile"):
            await remedies.apply(remedy)
    assert engine.requests == before


async def test_each_worker_has_a_status_and_the_one_with_the_given_identifier_is_restarted(
    containers: Containers, engine: FakeEngine
):
    config: Any = engine.inspect["Config"]
    config["Labels"]["com.docker.compose.service"] = "worker"
    [worker] = await containers.workers()
    assert worker.state is State.READY
    await containers.restart("worker", "a recovery pass", container=ID[:12])
    assert engine.requests[-1] == f"/containers/{ID}/restart?t=20"
    with pytest.raises(DockerUnavailable, match="worker has no container another: `vestal up` makes one"):
        await containers.restart("worker", "a recovery pass", container="another")
    with pytest.raises(DockerUnavailable, match="nightly has no container: `vestal recover --once`"):
        await containers.restart("nightly", "a recovery pass")


async def test_container_that_becomes_healthy_is_recorded_once_and_only_if_it_had_died(
    api: DockerApi, engine: FakeEngine, home: Path, monkeypatch
):
    monkeypatch.setattr("host_agent.services.docker.death_watch.LATE_EVIDENCE_S", 0.05)
    journal = Journal(home / "journal.db")
    watch = DeathWatch(api, "vestal", journal, on_change=lambda: None)
    following = asyncio.create_task(watch.run())
    with journal.follow() as entries:
        for action in ("health_status: healthy", "die", "health_status: healthy", "health_status: healthy"):
            engine.events.put_nowait(event(action, 100))
        async with asyncio.timeout(WITHIN_S):
            seen = [(await entries.get() or {}).get("event") for _ in range(2)]
        assert seen == ["container_died", "container_healthy"]
        await asyncio.sleep(0.1)
        assert entries.empty()
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)
    journal.close()
