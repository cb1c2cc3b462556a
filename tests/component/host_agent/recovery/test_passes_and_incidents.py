"""Recovery passes over a real journal, and the incidents that follow from what they record."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from host_agent.incidents import Incidents
from host_agent.journal import Journal
from host_agent.recovery.facts import ControlledBy, Facts, ServiceFacts
from host_agent.recovery.passes import Passes
from host_agent.recovery.remedies import Remedy
from vestal.platform.memory_headroom import Headroom
from vestal.supervision import State

PAUSED = ServiceFacts("orchestrator", ControlledBy.DOCKER, State.DEGRADED, paused=True)
ROOM = Headroom()
READY = ServiceFacts("orchestrator", ControlledBy.DOCKER, State.READY, healthy=True)


class Machine:
    """A machine with one container, whose remedies work, and with this much room in memory."""

    def __init__(self, service: ServiceFacts, headroom: Headroom = ROOM, docker_answers: bool = True) -> None:
        self.service, self.headroom, self.docker_answers = service, headroom, docker_answers
        self.checks = 0

    async def gather(self) -> Facts:
        self.checks += 1
        return Facts((self.service,), headroom=self.headroom, docker_answers=self.docker_answers)

    async def apply(self, remedy: Remedy) -> None:
        self.service = READY


@pytest.fixture
def journal(home: Path) -> Iterator[Journal]:
    opened = Journal(home / "journal.db")
    opened.record("agent", "agent_started")
    opened.record("recovery", "recovery_finished", healthy=True, unhealthy=[])
    yield opened
    opened.close()


async def one_pass(machine: Machine, journal: Journal, home: Path) -> None:
    passes = Passes(machine, machine, journal, home / "lock", join_window_s=0.0)
    passes.request("a test")
    await passes.wait()


async def test_recovery_pass_that_unpauses_a_container_at_once_leaves_no_open_incident(
    journal: Journal, home: Path
):
    incidents = Incidents(journal)
    await one_pass(Machine(PAUSED), journal, home)
    (incident,) = incidents.newest()
    assert (incident["open"], incident["services"]) == (False, ["orchestrator"])


async def test_incident_of_wired_memory_outlasts_recovery_passes_that_find_every_service_healthy(
    journal: Journal, home: Path
):
    incidents = Incidents(journal)
    machine = Machine(READY, Headroom("78% of the memory is wired down", needs_reboot=True))
    for _ in range(3):
        await one_pass(machine, journal, home)
        assert [incident["open"] for incident in incidents.newest()] == [True]
    machine.headroom = Headroom()
    await one_pass(machine, journal, home)
    assert [incident["open"] for incident in incidents.newest()] == [False]


async def test_recovery_pass_records_the_services_of_its_last_check_and_the_journal_entry_before_that_check(
    journal: Journal, home: Path
):
    machine = Machine(PAUSED)
    await one_pass(machine, journal, home)
    applied, finished = journal.newest(2)
    assert machine.checks == 2
    assert finished["fields"]["checked"] == ["memory", "orchestrator", "worker"]
    assert finished["fields"]["absent"] == ["worker"]
    assert finished["fields"]["checked_seq"] == applied["seq"]


NATIVE = ServiceFacts("orchestrator", ControlledBy.SUPERVISOR, State.READY, healthy=True)
WORKER = ServiceFacts("worker", ControlledBy.DOCKER, State.DEGRADED, restarts_left=0, container="0123")


@pytest.mark.parametrize("orchestrator", [READY, NATIVE])
async def test_incident_of_a_worker_ends_with_the_recovery_pass_that_finds_no_worker_any_more(
    journal: Journal, home: Path, orchestrator: ServiceFacts
):
    """After `docker rm -f` of the only worker, its incident once stayed open until the agent restarted."""
    incidents = Incidents(journal)
    journal.record("worker", "container_died", "killed by SIGKILL", reason="killed_by_request")
    await one_pass(Machine(WORKER), journal, home)
    assert [incident["open"] for incident in incidents.newest()] == [True]
    await one_pass(Machine(orchestrator), journal, home)
    (incident,) = incidents.newest()
    assert not incident["open"] and incident["sentence"].endswith("; no worker is left.")


async def test_incident_of_a_worker_outlasts_a_recovery_pass_to_which_the_docker_engine_does_not_answer(
    journal: Journal, home: Path
):
    incidents = Incidents(journal)
    journal.record("worker", "container_died", "killed by SIGKILL", reason="killed_by_request")
    await one_pass(Machine(READY, docker_answers=False), journal, home)
    assert [incident["open"] for incident in incidents.newest()] == [True]


async def test_recovery_pass_during_which_the_clock_is_set_back_records_how_long_it_took(
    journal: Journal, home: Path, monkeypatch: pytest.MonkeyPatch
):
    """The log once said "A recovery pass ended in -3600.0 s"."""
    machine, wall = Machine(PAUSED), time.time

    async def apply(remedy: Remedy) -> None:
        machine.service = READY
        await asyncio.sleep(0.05)
        monkeypatch.setattr(time, "time", lambda: wall() - 3600)

    machine.apply = apply  # type: ignore[method-assign]
    await one_pass(machine, journal, home)
    assert 0.05 <= journal.newest(1)[0]["fields"]["took_s"] < 60
