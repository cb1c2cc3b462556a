"""What the answers of a peer's /health say about it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from mlx_server.gateway.peers.machine_choice import Machine
from mlx_server.gateway.peers.polling import MOST_POLL_S, PeerState, poll
from vestal.supervision import FakeClock


def test_peer_machine_without_answers_for_five_seconds_is_dead_until_it_answers_again():
    state = PeerState(0.0)
    for now in (1.0, 2.0, 3.0, 4.0):
        state.heard(None, now)
        assert not state.is_dead
    state.heard(None, 5.0)
    assert state.is_dead and not state.machine("x").serves
    for _ in range(10):
        state.heard(None, 6.0)
    assert state.next_poll_s == MOST_POLL_S
    state.heard({"status": "ok"}, 9.0)
    assert not state.is_dead and state.machine("x").serves and state.next_poll_s == 1.0


def test_running_and_waiting_requests_and_slots_of_a_peer_machine_are_read_from_its_health_answer():
    state = PeerState(0.0)
    state.heard({"status": "ok", "requests": {"running": 2, "queued": 1, "parked": 4, "slots": 8}}, 1.0)
    assert state.machine("x", 7) == Machine("x", True, 2, 5, 8, 7)
    state.sent += 1
    assert state.machine("x").running == 3


def test_gateway_named_among_its_own_peers_is_not_treated_as_a_peer():
    """One file of settings may name all machines."""
    state = PeerState(0.0, "me")
    assert not state.is_living
    state.heard({"status": "ok", "instance": "other"}, 1.0)
    assert state.is_living
    state.heard({"status": "ok", "instance": "me"}, 2.0)
    assert not (state.is_living or state.machine("x").serves)


@pytest.mark.parametrize("status", ["draining", "failed", "other", None, 7])
def test_peer_machine_with_a_health_status_other_than_serving_gets_no_requests(status):
    state = PeerState(0.0)
    state.heard({"status": status}, 1.0)
    assert not state.machine("x").serves


INVALID_COUNTS: list[Any] = [
    None,
    [],
    {"running": "x"},
    {"slots": -1},
    {"running": True},
    {"queued": 10**400},
]


@pytest.mark.parametrize("requests", INVALID_COUNTS)
def test_peer_machine_with_invalid_counts_in_its_health_answer_gets_no_requests(requests):
    state = PeerState(0.0)
    state.heard({"status": "ok", "requests": requests}, 1.0)
    assert not (state.is_living or state.machine("x").serves)


@pytest.mark.parametrize("status", [{"database": "up"}, ["ok"], None, 7])
def test_service_whose_health_status_is_not_a_text_is_not_treated_as_a_peer(status):
    """A status that was an object raised TypeError in each placement."""
    state = PeerState(0.0)
    state.heard({"status": "ok"}, 1.0)
    for now in (2.0, 3.0, 10.0):
        state.heard({"status": status}, now)
    assert state.is_dead and not state.machine("x").serves


class Peer:
    """Stands in for a peer. `health` returns what was set, or raises it."""

    url = "http://other"

    def __init__(self, answer: Any = None) -> None:
        self.answer = answer

    async def health(self) -> Any:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


async def _polled(peer: Peer, state: PeerState, clock: FakeClock) -> asyncio.Task[None]:
    polling = poll(peer, state, lambda health: state.heard(health, clock.now()), clock)  # type: ignore[arg-type]
    return asyncio.ensure_future(polling)


async def test_peer_machine_that_was_off_for_three_hours_is_found_again():
    """After 2.3 hours the computation of the next pause overflowed, which ended the polling."""
    clock, peer = FakeClock(), Peer()
    state = PeerState(clock.now())
    polling = await _polled(peer, state, clock)
    await clock.run_for(3 * 3600.0, turns=4)
    assert not polling.done() and state.is_dead
    peer.answer = {"status": "ok"}
    await clock.run_for(MOST_POLL_S)
    assert state.is_living
    polling.cancel()


async def test_error_in_a_poll_counts_as_a_missed_one_and_is_logged_once(caplog):
    clock, peer = FakeClock(), Peer(RuntimeError("unforeseen"))
    state = PeerState(clock.now())
    state.heard({"status": "ok"}, clock.now())
    polling = await _polled(peer, state, clock)
    await clock.run_for(30.0)
    assert not polling.done() and state.is_dead
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    peer.answer = {"status": "ok"}
    await clock.run_for(MOST_POLL_S)
    assert state.is_living
    polling.cancel()
