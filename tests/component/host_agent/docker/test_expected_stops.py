"""What the journal says of a container that the agent itself stopped."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from host_agent.journal import Journal
from host_agent.services.docker.container_deaths import Death
from host_agent.services.docker.death_watch import DeathWatch
from host_agent.services.docker.docker_api import DockerApi
from tests.component.host_agent.docker.conftest import ID, WITHIN_S, FakeEngine, event


@pytest.mark.parametrize("by", ["", "a recovery pass"])
async def test_container_death_is_recorded_with_whoever_had_the_agent_stop_the_container(
    engine: FakeEngine, api: DockerApi, home: Path, monkeypatch: pytest.MonkeyPatch, by: str
):
    """Without it, the restart of a hung container by a pass looked as if a person had stopped it."""
    monkeypatch.setattr("host_agent.services.docker.death_watch.LATE_EVIDENCE_S", 0.05)
    journal = Journal(home / "journal.db")
    watch = DeathWatch(api, "vestal", journal, on_change=lambda: None)
    if by:
        watch.expect_stop(ID, by)
        watch.expect_stop("another worker's container", "a person")
    following = asyncio.create_task(watch.run())
    with journal.follow() as entries:
        engine.events.put_nowait(event("die", 100, exitCode="137"))
        async with asyncio.timeout(WITHIN_S):
            while (entry := await entries.get()) is None or entry["event"] != "container_died":
                pass
    assert entry["fields"]["stopped_by"] == by
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
