"""Recovery passes: one at a time, joined by later callers, bounded, with a report of what was not done."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from host_agent.journal import Journal
from host_agent.recovery.facts import ControlledBy, Facts, OrphanFacts, PortFacts, ServiceFacts
from host_agent.recovery.passes import MAX_LOOKS, Passes
from host_agent.recovery.remedies import BringUpContainer, Remedy, StartChild
from vestal.platform import file_lock
from vestal.supervision import State
from vestal.web.http_error import HttpError

WITHIN_S = 60.0
MLX = ServiceFacts("mlx_server", ControlledBy.SUPERVISOR, State.STOPPED)
OLLAMA = ServiceFacts("ollama", ControlledBy.SUPERVISOR, State.STOPPED)
NIGHTLY = ServiceFacts("nightly", ControlledBy.DOCKER, State.STOPPED, detail="it has no container")


@dataclass
class FakeMachine:
    """A machine on which remedies work, except for the services in `broken`."""

    services: dict[str, ServiceFacts]
    broken: dict[str, Exception] = field(default_factory=dict)
    applied: list[Remedy] = field(default_factory=list)
    checks: int = 0

    async def gather(self) -> Facts:
        self.checks += 1
        return Facts(services=tuple(self.services.values()))

    async def apply(self, remedy: Remedy) -> None:
        self.applied.append(remedy)
        if remedy.service in self.broken:
            raise self.broken[remedy.service]
        self.services[remedy.service] = replace(
            self.services[remedy.service], state=State.READY, healthy=True
        )


@pytest.fixture
def journal(home: Path) -> Iterator[Journal]:
    opened = Journal(home / "journal.db")
    yield opened
    opened.close()


def machine_with(*services: ServiceFacts, **broken: Exception) -> FakeMachine:
    return FakeMachine({service.name: service for service in services}, broken)


def passes_over(machine: FakeMachine, journal: Journal, home: Path, **settings: Any) -> Passes:
    return Passes(machine, machine, journal, home / "lock", **settings)


async def one_pass(machine: FakeMachine, journal: Journal, home: Path, settle_s: float = 0.3):
    passes = passes_over(machine, journal, home, settle_s=settle_s)
    report, begun = passes.request("a test")
    assert begun
    await passes.wait()
    assert report.state == "done"
    return report


async def test_recovery_pass_starts_stopped_services_in_order_and_reports_them(journal: Journal, home: Path):
    machine = machine_with(MLX, NIGHTLY)
    report = await one_pass(machine, journal, home)
    assert machine.applied == [StartChild("mlx_server"), BringUpContainer("nightly")]
    assert report.healthy
    assert [line.split(":")[0] for line in report.done] == ["mlx_server", "nightly"]
    assert report.left == []
    events = [entry["event"] for entry in journal.since(0)]
    assert events == ["remedy_applied", "remedy_applied", "recovery_finished"]


async def test_recovery_pass_whose_first_remedy_fails_applies_the_next_remedy(journal: Journal, home: Path):
    machine = machine_with(MLX, NIGHTLY, mlx_server=RuntimeError("the disk is full"))
    report = await one_pass(machine, journal, home)
    assert BringUpContainer("nightly") in machine.applied
    assert report.left == ["mlx_server: tried to start it, but: the disk is full"], "each service once"
    assert any(line.startswith("nightly") for line in report.done)
    assert not report.healthy


@pytest.mark.parametrize("held", ["memory", "port"])
async def test_recovery_pass_does_not_wait_for_a_service_that_was_stopped_by_hand(
    journal: Journal, home: Path, held: str
):
    """A pass that ended a runner without its server waited a minute for Ollama, stopped by a person."""
    machine = machine_with(replace(OLLAMA, stopped_by_hand=True))
    services = tuple(machine.services.values())
    if held == "memory":
        first = Facts(services=services, orphans=(OrphanFacts("ollama", 77, 2**30),))
    else:
        port = PortFacts("ollama", 77, "an old server holds its port", held_by_old_server=True)
        first = Facts(services=services, ports=(port,))
    gather = machine.gather

    async def once_with_the_holder() -> Facts:
        return first if not machine.applied else await gather()

    async def apply(remedy: Remedy) -> None:
        machine.applied.append(remedy)

    machine.gather, machine.apply = once_with_the_holder, apply  # type: ignore[method-assign]
    report = await asyncio.wait_for(one_pass(machine, journal, home, settle_s=WITHIN_S), WITHIN_S / 2)
    assert len(machine.applied) == 1
    assert any("stopped by hand" in line for line in report.left)


async def test_recovery_pass_reports_a_service_that_stays_unhealthy_after_its_remedy(
    journal: Journal, home: Path
):
    machine = machine_with(MLX)
    machine.apply = _nothing  # type: ignore[method-assign]
    began = time.monotonic()
    report = await one_pass(machine, journal, home, settle_s=0.1)
    assert report.done == []
    (line,) = report.left
    found = re.fullmatch(r"mlx_server: is stopped; still unhealthy after (\d+) s", line)
    assert found and int(found[1]) <= round(time.monotonic() - began), "the time that it took"


async def test_recovery_pass_that_restarts_a_worker_does_not_wait_for_a_worker_without_restarts_left(
    journal: Journal, home: Path
):
    """It waited 90 s for the other worker, and its report did not name the restart."""
    dead = ServiceFacts("worker", ControlledBy.DOCKER, State.DEGRADED, detail="is dead", container="aa")
    machine = machine_with(replace(dead, restarts_left=0, container="bb"))
    machine.services["ended"] = replace(dead, restarts_left=5)

    async def apply(remedy: Remedy) -> None:
        machine.services["ended"] = replace(machine.services["ended"], state=State.READY, healthy=True)

    machine.apply = apply  # type: ignore[method-assign]
    report = await asyncio.wait_for(one_pass(machine, journal, home, settle_s=600), WITHIN_S)
    assert [line.split(":")[0] for line in report.done] == ["worker"]
    assert len(report.left) == 1 and "bb" in report.left[0]


async def _nothing(remedy: Remedy) -> None:
    """Accept the remedy without an effect."""


async def test_exception_in_a_check_ends_that_recovery_pass_but_the_next_pass_still_runs(
    journal: Journal, home: Path
):
    machine = machine_with()
    passes = passes_over(machine, journal, home)
    gather, machine.gather = machine.gather, _broken  # type: ignore[method-assign]
    report, _ = passes.request("a test")
    await passes.wait()
    assert "the pass itself failed" in report.left[0]
    machine.gather = gather  # type: ignore[method-assign]
    second, begun = passes.request("a test")
    await passes.wait()
    assert begun
    assert second.healthy
    assert passes.last is second
    assert passes.report(report.run_id) is report


async def _broken() -> Facts:
    raise RuntimeError("a fault of ours")


async def test_recovery_pass_while_another_process_holds_the_lock_does_nothing(
    journal: Journal, home: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("host_agent.recovery.passes.LOCK_TIMEOUT_S", 0.0)
    machine = machine_with(MLX)
    with file_lock.hold_lock_blocking(home / "lock", 1.0):
        report = await one_pass(machine, journal, home)
    assert machine.applied == []
    assert "was skipped" in report.left[0]


async def test_recovery_dry_run_reports_remedies_without_applying_them(journal: Journal, home: Path):
    machine = machine_with(MLX, replace(NIGHTLY, stopped_by_hand=True))
    report = await passes_over(machine, journal, home).dry_run()
    assert machine.applied == []
    assert report.done == ["mlx_server: would start it"]
    assert "stopped by hand" in report.left[0]
    assert journal.since(0) == []


async def test_scheduled_recovery_pass_over_healthy_services_records_nothing(journal: Journal, home: Path):
    passes = passes_over(machine_with(replace(MLX, state=State.READY, healthy=True)), journal, home)
    passes.request("scheduled")
    await passes.wait()
    assert journal.since(0) == []


async def test_recovery_requested_after_the_checks_of_a_running_pass_makes_that_pass_repeat_them(
    journal: Journal, home: Path
):
    """A thousand callers take longer to arrive than a pass over healthy services takes."""
    machine = machine_with(replace(MLX, state=State.READY, healthy=True))
    passes = passes_over(machine, journal, home, join_window_s=600)
    first, _ = passes.request("a test")
    while not machine.checks:  # noqa: ASYNC110 - then it has looked, and lingers
        await asyncio.sleep(0.01)
    passes._join_window_s = 0.05
    machine.services["mlx_server"] = MLX
    joined, begun = passes.request("somebody who saw it die")
    assert (joined, begun) == (first, False)
    await passes.wait()
    assert first.done == ["mlx_server: is stopped; did: start it; it is healthy now"]
    assert first.left == []
    assert passes.count == 1


async def test_recovery_pass_requested_again_repeatedly_still_ends(journal: Journal, home: Path):
    passes = passes_over(machine_with(MLX), journal, home, join_window_s=0.02)
    report, _ = passes.request("a test")
    async with asyncio.timeout(WITHIN_S):
        while report.state != "done":
            if passes.running:
                passes.request("one more")
            await asyncio.sleep(0.005)
    assert report.found == ["mlx_server: is stopped"]


async def test_recovery_pass_waiting_for_a_service_checks_it_at_once_if_recovery_is_requested_again(
    journal: Journal, home: Path
):
    """Earlier, a pass waited 90 s for a container that was removed again just as it came up."""
    machine = machine_with(NIGHTLY)
    passes = passes_over(machine, journal, home, settle_s=600, join_window_s=0.05)
    heal = machine.apply

    async def apply(remedy: Remedy) -> None:
        await heal(remedy)
        if len(machine.applied) == 1:  # it has not come up yet
            machine.services["nightly"] = replace(NIGHTLY, state=State.STARTING)

    machine.apply = apply  # type: ignore[method-assign]
    report, _ = passes.request("a test")
    async with asyncio.timeout(WITHIN_S):
        while machine.checks < 3:  # noqa: ASYNC110 - it waits, and repeats its check
            await asyncio.sleep(0.01)
        machine.services["nightly"] = NIGHTLY  # gone again, before the pass has seen it up
        assert passes.request("somebody who saw it go") == (report, False)
        await passes.wait()
    assert machine.applied == [BringUpContainer("nightly"), BringUpContainer("nightly")]
    assert report.done == ["nightly: it has no container; did: bring its container up; it is healthy now"]
    assert (report.left, report.healthy) == ([], True)


async def test_recovery_pass_requested_again_during_its_last_check_is_followed_by_another_pass(
    journal: Journal, home: Path
):
    """Earlier, a container that was killed again at the end of a long pass stayed down for 300 s."""
    machine = machine_with(NIGHTLY)
    passes = passes_over(machine, journal, home, settle_s=0)
    heal = machine.apply

    async def apply(remedy: Remedy) -> None:
        await heal(remedy)
        if len(machine.applied) == 1:
            machine.services["nightly"] = NIGHTLY
            passes.request("somebody who saw it go")

    machine.apply = apply  # type: ignore[method-assign]
    passes.request("a test")
    async with asyncio.timeout(WITHIN_S):
        while passes.running:
            await passes.wait()
    assert (passes.count, machine.applied) == (2, [BringUpContainer("nightly")] * 2)
    assert passes.last and passes.last.healthy


async def test_recovery_pass_brings_up_a_service_each_time_that_it_dies_during_the_pass(
    journal: Journal, home: Path
):
    """Earlier, the container stayed down for 90 s after the fifth kill within one pass."""
    machine = machine_with(NIGHTLY)
    passes = passes_over(machine, journal, home, settle_s=600, join_window_s=0.01)
    applied = asyncio.Semaphore(0)

    async def apply(remedy: Remedy) -> None:
        machine.applied.append(remedy)
        machine.services["nightly"] = replace(NIGHTLY, state=State.STARTING)
        applied.release()

    machine.apply = apply  # type: ignore[method-assign]
    passes.request("a test")
    async with asyncio.timeout(WITHIN_S):
        for _ in range(MAX_LOOKS + 2):
            await applied.acquire()
            machine.services["nightly"] = NIGHTLY
            passes.request("somebody who saw it go")
    await passes.close()
    assert machine.applied == [BringUpContainer("nightly")] * (MAX_LOOKS + 2)


async def test_recovery_passes_that_are_closed_during_a_pass_cancel_it_and_refuse_further_requests(
    journal: Journal, home: Path
):
    """While the agent stopped, a requested pass once started again what had just been stopped."""
    machine, began = machine_with(NIGHTLY), asyncio.Event()

    async def apply(remedy: Remedy) -> None:
        began.set()
        await asyncio.sleep(60)
        machine.applied.append(remedy)

    machine.apply = apply  # type: ignore[method-assign]
    passes = passes_over(machine, journal, home)
    passes.request("a test")
    passes.request("a caller that joins")
    await began.wait()
    await passes.close()
    with pytest.raises(HttpError, match="The agent is stopping") as refusal:
        passes.request("POST /recover")
    assert (refusal.value.status, refusal.value.retry_after_s) == (503, 5.0)
    assert passes.running is None
    assert machine.applied == []


async def test_recovery_pass_records_all_unhealthy_services_and_as_faults_only_those_it_failed_to_repair(
    journal: Journal, home: Path
):
    by_hand = replace(NIGHTLY, stopped_by_hand=True)
    starting = replace(MLX, name="orchestrator", state=State.STARTING)
    machine = machine_with(MLX, by_hand, starting, mlx_server=RuntimeError("the disk is full"))
    await one_pass(machine, journal, home, settle_s=0.1)
    fields = journal.newest(1)[0]["fields"]
    assert fields["unhealthy"] == ["mlx_server", "nightly", "orchestrator"]
    assert fields["faults"] == {"mlx_server": "is stopped"}


async def test_scheduled_recovery_pass_without_findings_is_recorded_only_during_an_open_incident(
    journal: Journal, home: Path
):
    is_open = False
    passes = passes_over(machine_with(), journal, home, join_window_s=0.0, records_all=lambda: is_open)
    for is_open, count in ((False, 0), (True, 1)):  # noqa: B007 - the pass reads it
        passes.request("scheduled")
        await passes.wait()
        assert len(journal.newest()) == count
    assert journal.newest()[0]["fields"]["unhealthy"] == []
