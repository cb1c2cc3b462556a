"""What the answers of a peer's /health say about it."""

from __future__ import annotations

import pytest

from mlx_server.gateway.peers.machine_choice import Machine
from mlx_server.gateway.peers.polling import MOST_POLL_S, PeerState


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


@pytest.mark.parametrize("requests", [None, [], {"running": "x", "slots": -1}, {"running": True}])
def test_peer_machine_with_invalid_counts_in_its_health_answer_has_no_slots(requests):
    state = PeerState(0.0)
    state.heard({"status": "ok", "requests": requests}, 1.0)
    assert state.machine("x").slots == 0
