"""Admission: places, seats, and turns."""

from __future__ import annotations

import pytest

from mlx_server.gateway.requests.admission import Admission, QueueFull


def _taken(admission: Admission) -> list[str]:
    return list(iter(admission.take, None))


def test_take_when_more_wait_than_places_stops_at_the_limit():
    admission = Admission(2, 5)
    for name in "abc":
        admission.enqueue(name, "one")
    assert _taken(admission) == ["a", "b"]
    assert (admission.held, admission.queued) == (2, 1)


def test_enqueue_when_places_and_seats_are_taken_is_refused_with_the_figures():
    admission = Admission(1, 1)
    admission.enqueue("a", "one")
    admission.take()
    admission.enqueue("b", "one")
    with pytest.raises(QueueFull) as refused:
        admission.enqueue("c", "one")
    assert (refused.value.running, refused.value.queued) == (1, 1)


def test_take_when_one_client_has_filled_the_queue_lets_another_in_first():
    admission = Admission(2, 20)
    for number in range(10):
        admission.enqueue(f"greedy{number}", "greedy")
    assert _taken(admission) == ["greedy0", "greedy1"]
    admission.enqueue("modest0", "modest")
    admission.leave("greedy0")
    assert _taken(admission) == ["modest0"]


def test_take_when_clients_hold_as_many_places_alternates():
    admission = Admission(1, 20)
    for number in range(3):
        admission.enqueue(f"a{number}", "a")
        admission.enqueue(f"b{number}", "b")
    order = []
    while (request_id := admission.take()) is not None:
        order.append(request_id)
        admission.leave(request_id)
    assert order == ["a0", "b0", "a1", "b1", "a2", "b2"]


def test_leave_when_still_queued_gives_up_the_seat():
    admission = Admission(1, 1)
    admission.enqueue("a", "one")
    admission.take()
    admission.enqueue("b", "one")
    admission.leave("b")
    admission.leave("a")
    assert (admission.held, admission.queued) == (0, 0)
    assert admission.take() is None
    admission.leave("unknown")
