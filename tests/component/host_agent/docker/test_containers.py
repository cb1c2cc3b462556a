"""The state of containers and the causes of their deaths, from a stand-in engine's records and events."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from host_agent.journal import Journal
from host_agent.services.docker.container_deaths import Death
from host_agent.services.docker.containers import Containers
from host_agent.services.docker.death_watch import DeathWatch
from host_agent.services.docker.docker_api import DockerApi
from tests.component.host_agent.docker.conftest import ID, FakeEngine, event
from vestal.supervision import JsonStateStore


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
        async with asyncio.timeout(5):
            while (entry := await entries.get()) is None or entry["event"] != "container_died":
                pass
    assert entry["component"] == "orchestrator"
    assert entry["fields"]["exit_code"] == code
    assert words in entry["cause"]
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)
    journal.close()


async def test_container_stopped_by_the_agent_is_attributed_to_whoever_asked_for_the_stop(
    engine: FakeEngine, api: DockerApi, home: Path
):
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


async def _until_explained(containers: Containers, engine: FakeEngine, *events: dict[str, Any]) -> None:
    for happened in events:
        engine.events.put_nowait(happened)
    async with asyncio.timeout(5):
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
    async with asyncio.timeout(5):
        assert await containers.deaths.pass_requests.get() == "Docker calls orchestrator unhealthy"


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
        async with asyncio.timeout(5):
            seen = [(await entries.get() or {}).get("event") for _ in range(2)]
        assert seen == ["container_died", "container_healthy"]
        await asyncio.sleep(0.1)
        assert entries.empty()
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)
    journal.close()
