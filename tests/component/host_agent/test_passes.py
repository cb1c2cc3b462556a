"""The runner of passes: shared, bounded, and honest about what it could not do."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from host_agent.journal import Journal
from host_agent.recovery.facts import BringUp, Facts, Kind, Remedy, ServiceFacts, StartChild
from host_agent.recovery.passes import LOOKS, Passes
from vestal.platform import file_lock
from vestal.supervision import State

MLX = ServiceFacts("mlx_server", Kind.CHILD, State.STOPPED)
NIGHTLY = ServiceFacts("nightly", Kind.CONTAINER, State.STOPPED, detail="it has no container")


@dataclass
class Hands:
    """A world in which remedies work, except for those in `broken`."""

    services: dict[str, ServiceFacts]
    broken: dict[str, Exception] = field(default_factory=dict)
    applied: list[Remedy] = field(default_factory=list)

    async def gather(self) -> Facts:
        return Facts(services=tuple(self.services.values()))

    async def apply(self, remedy: Remedy) -> None:
        self.applied.append(remedy)
        if remedy.service in self.broken:
            raise self.broken[remedy.service]
        self.services[remedy.service] = replace(self.services[remedy.service], state=State.READY, well=True)


@pytest.fixture
def journal(home: Path) -> Iterator[Journal]:
    opened = Journal(home / "journal.db")
    yield opened
    opened.close()


def world(*services: ServiceFacts, **broken: Exception) -> Hands:
    return Hands({service.name: service for service in services}, broken)


async def one_pass(hands: Hands, journal: Journal, home: Path, settle_s: float = 0.3):
    passes = Passes(hands, journal, home / "lock", settle_s=settle_s)
    report, begun = passes.request("a test")
    assert begun
    await passes.wait()
    assert report.state == "done"
    return report


async def test_what_is_down_is_healed_in_order_and_told(journal: Journal, home: Path):
    hands = world(MLX, NIGHTLY)
    report = await one_pass(hands, journal, home)
    assert hands.applied == [StartChild("mlx_server"), BringUp("nightly")]
    assert report.healthy
    assert [line.split(":")[0] for line in report.done] == ["mlx_server", "nightly"]
    assert report.left == []
    events = [entry["event"] for entry in journal.since(0)]
    assert events == ["remedy_applied", "remedy_applied", "recovery_finished"]


async def test_rung_that_fails_does_not_starve_those_below(journal: Journal, home: Path):
    hands = world(MLX, NIGHTLY, mlx_server=RuntimeError("the disk is full"))
    report = await one_pass(hands, journal, home)
    assert BringUp("nightly") in hands.applied
    assert report.left == ["mlx_server: tried to start it, but: the disk is full"], "each service once"
    assert any(line.startswith("nightly") for line in report.done)
    assert not report.healthy


async def test_remedy_that_does_not_help_is_told_as_left_and_not_as_done(journal: Journal, home: Path):
    hands = world(MLX)
    hands.apply = _nothing  # type: ignore[method-assign]
    report = await one_pass(hands, journal, home, settle_s=0.1)
    assert report.done == []
    assert report.left == ["mlx_server: is stopped; not well after 0 s"], "the time that it took"


async def _nothing(remedy: Remedy) -> None:
    """It was asked to start, and did not come up."""


async def test_pass_that_fails_itself_ends_and_the_next_may_begin(journal: Journal, home: Path):
    hands = world()
    passes = Passes(hands, journal, home / "lock")
    gather, hands.gather = hands.gather, _broken  # type: ignore[method-assign]
    report, _ = passes.request("a test")
    await passes.wait()
    assert "the pass itself failed" in report.left[0]
    hands.gather = gather  # type: ignore[method-assign]
    second, begun = passes.request("a test")
    await passes.wait()
    assert begun
    assert second.healthy
    assert passes.last is second
    assert passes.report(report.run_id) is report


async def _broken() -> Facts:
    raise RuntimeError("a fault of ours")


async def test_pass_gives_way_to_another_process_that_heals(
    journal: Journal, home: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("host_agent.recovery.passes.LOCK_TIMEOUT_S", 0.0)
    hands = world(MLX)
    with file_lock.hold_lock_blocking(home / "lock", 1.0):
        report = await one_pass(hands, journal, home)
    assert hands.applied == []
    assert "gave way" in report.left[0]


async def test_dry_run_says_what_it_would_do_and_does_nothing(journal: Journal, home: Path):
    hands = world(MLX, replace(NIGHTLY, stopped_by_hand=True))
    report = await Passes(hands, journal, home / "lock").dry_run()
    assert hands.applied == []
    assert report.done == ["mlx_server: would start it"]
    assert "stopped by hand" in report.left[0]
    assert journal.since(0) == []


async def test_scheduled_pass_over_a_healthy_stack_leaves_no_trace(journal: Journal, home: Path):
    passes = Passes(world(replace(MLX, state=State.READY, well=True)), journal, home / "lock")
    passes.request("scheduled")
    await passes.wait()
    assert journal.since(0) == []


async def test_caller_who_joins_as_a_pass_ends_gets_a_look_of_their_own(journal: Journal, home: Path):
    """A thousand callers at once take longer to come in than a pass over a healthy stack takes."""
    hands = world(replace(MLX, state=State.READY, well=True))
    passes = Passes(hands, journal, home / "lock", linger_s=0.1)
    first, _ = passes.request("a test")
    await asyncio.sleep(0.03)  # it has looked, and lingers
    hands.services["mlx_server"] = MLX
    joined, begun = passes.request("somebody who saw it die")
    assert (joined, begun) == (first, False)
    await passes.wait()
    assert first.done == ["mlx_server: is stopped; did: start it; it is well now"]
    assert first.left == []
    assert passes.count == 1


async def test_pass_that_callers_join_again_and_again_comes_to_an_end(journal: Journal, home: Path):
    passes = Passes(world(MLX), journal, home / "lock", linger_s=0.02)
    report, _ = passes.request("a test")
    async with asyncio.timeout(5):
        while report.state != "done":
            if passes.running:
                passes.request("one more")
            await asyncio.sleep(0.005)
    assert report.found == ["mlx_server: is stopped"]


async def test_caller_who_joins_while_a_remedy_is_waited_for_is_looked_at_soon(journal: Journal, home: Path):
    """A container removed again just as it came up was waited for for 90 s, and then brought up."""
    hands = world(NIGHTLY)
    passes = Passes(hands, journal, home / "lock", settle_s=30, linger_s=0.05)
    report, _ = passes.request("a test")
    await asyncio.sleep(0.02)
    assert hands.applied
    hands.services["nightly"] = NIGHTLY  # gone again, before the pass has seen it up
    await asyncio.sleep(0.05)
    passes.request("somebody who saw it go")
    async with asyncio.timeout(5):
        await passes.wait()
    assert hands.applied == [BringUp("nightly"), BringUp("nightly")]
    assert report.done == ["nightly: it has no container; did: bring its container up; it is well now"]
    assert (report.left, report.healthy) == ([], True)


async def test_caller_who_joins_during_the_last_look_gets_a_pass_of_their_own(journal: Journal, home: Path):
    """A container killed again while a pass that had taken long was at its end stayed down for 300 s."""
    hands = world(NIGHTLY)
    passes = Passes(hands, journal, home / "lock", settle_s=0)
    heal = hands.apply

    async def apply(remedy: Remedy) -> None:
        await heal(remedy)
        if len(hands.applied) == 1:
            hands.services["nightly"] = NIGHTLY
            passes.request("somebody who saw it go")

    hands.apply = apply  # type: ignore[method-assign]
    passes.request("a test")
    async with asyncio.timeout(5):
        while passes.running:
            await passes.wait()
    assert (passes.count, hands.applied) == (2, [BringUp("nightly")] * 2)
    assert passes.last and passes.last.healthy


async def test_what_goes_again_and_again_is_brought_up_each_time(journal: Journal, home: Path):
    """The fifth kill within one pass was waited out for 90 s, with the container down."""
    hands = world(NIGHTLY)
    passes = Passes(hands, journal, home / "lock", settle_s=30, linger_s=0.01)
    applied = asyncio.Semaphore(0)

    async def apply(remedy: Remedy) -> None:
        hands.applied.append(remedy)
        hands.services["nightly"] = replace(NIGHTLY, state=State.STARTING)
        applied.release()

    hands.apply = apply  # type: ignore[method-assign]
    passes.request("a test")
    async with asyncio.timeout(20):
        for _ in range(LOOKS + 2):
            await applied.acquire()
            hands.services["nightly"] = NIGHTLY
            passes.request("somebody who saw it go")
    await passes.cancel()
    assert hands.applied == [BringUp("nightly")] * (LOOKS + 2)
