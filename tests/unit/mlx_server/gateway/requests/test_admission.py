"""Admission: the limit on what runs, the bounded queue, and fairness between clients."""

from __future__ import annotations

import pytest

from mlx_server.gateway.requests.table.admission import Admission, QueueFull


def _admit_all(admission: Admission) -> list[str]:
    return list(iter(admission.admit_next, None))


def test_admission_stops_at_the_slot_limit_when_more_requests_wait():
    admission = Admission(2, 5)
    for name in "abc":
        admission.enqueue(name, "one")
    assert _admit_all(admission) == ["a", "b"]
    assert (admission.slots_in_use, admission.queued) == (2, 1)


def test_admission_with_full_slots_and_a_full_queue_refuses_with_both_figures():
    admission = Admission(1, 1)
    admission.enqueue("a", "one")
    admission.admit_next()
    admission.enqueue("b", "one")
    with pytest.raises(QueueFull) as refused:
        admission.enqueue("c", "one")
    assert (refused.value.running, refused.value.queued) == (1, 1)


def test_admission_prefers_another_client_to_the_one_that_fills_the_queue():
    admission = Admission(2, 20)
    for number in range(10):
        admission.enqueue(f"greedy{number}", "greedy")
    assert _admit_all(admission) == ["greedy0", "greedy1"]
    admission.enqueue("modest0", "modest")
    admission.release("greedy0")
    assert _admit_all(admission) == ["modest0"]


def test_admission_alternates_between_clients_that_hold_equally_many_slots():
    admission = Admission(1, 20)
    for number in range(3):
        admission.enqueue(f"a{number}", "a")
        admission.enqueue(f"b{number}", "b")
    order = []
    while (request_id := admission.admit_next()) is not None:
        order.append(request_id)
        admission.release(request_id)
    assert order == ["a0", "b0", "a1", "b1", "a2", "b2"]


def test_released_request_frees_its_slot_or_its_place_in_the_queue():
    admission = Admission(1, 1)
    admission.enqueue("a", "one")
    admission.admit_next()
    admission.enqueue("b", "one")
    admission.release("b")
    admission.release("a")
    assert (admission.slots_in_use, admission.queued) == (0, 0)
    assert admission.admit_next() is None
    admission.release("unknown")


def test_request_that_an_earlier_gateway_accepted_is_queued_even_if_the_queue_is_full():
    """A gateway that continues the requests of another one must not refuse what the other had accepted."""
    admission = Admission(max_running=1, max_queued=0)
    admission.enqueue("running", "a")
    assert admission.admit_next() == "running"
    with pytest.raises(QueueFull):
        admission.enqueue("new", "a")
    admission.enqueue("resumed", "a", was_accepted=True)
    assert admission.admit_next() is None
    admission.release("running")
    assert admission.admit_next() == "resumed"
