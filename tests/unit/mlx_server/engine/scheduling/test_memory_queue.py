"""Which request that waits for memory is tried next, and for how long each may wait."""

from __future__ import annotations

from typing import Any

import pytest

from mlx_server.engine.errors import InsufficientMemory
from mlx_server.engine.memory.refusals import MustWait
from mlx_server.engine.memory.wait_policy import OTHERS_S, RETRY_S, WaitPolicy
from mlx_server.engine.scheduling.memory_queue import MemoryQueue
from mlx_server.engine.scheduling.request import Request, RequestStatus
from mlx_server.engine.scheduling.request_table import EngineRequests
from mlx_server.protocol import Generate


class Waiting:
    """A memory queue and the request table behind it."""

    def __init__(self, max_wait_s: float = 120.0) -> None:
        self.requests = EngineRequests()
        self.queue = MemoryQueue(self.requests, WaitPolicy(max_wait_s))

    def add(self, id: str, model: str = "m", **more: Any) -> Request:
        request = Request(Generate(id, model, "text", prompt="p", **more))
        self.requests.add(request)
        for status in (RequestStatus.TOKENIZING, RequestStatus.WAITING_FOR_MEMORY):
            self.requests.move(request, status)
        return request


def no_room(held_by_requests: bool = True) -> MustWait:
    error = InsufficientMemory("no room", retryable=True)
    return MustWait(error, held_by_requests=held_by_requests)


def test_requests_waiting_for_memory_are_served_in_order_of_arrival():
    waiting = Waiting()
    big, small = waiting.add("big", "m"), waiting.add("small", "n")
    assert waiting.queue.due(0.0) is big
    assert waiting.queue.awaited_model == "m"
    assert waiting.queue.postpone(big, no_room(), 0.0) is None
    assert waiting.queue.due(RETRY_S / 2) is None  # nor does the small one pass it
    assert waiting.queue.due(RETRY_S) is big
    waiting.requests.move(big, RequestStatus.PREPARING)
    assert waiting.queue.due(RETRY_S) is small


@pytest.mark.parametrize(("held_by_requests", "limit_s"), [(True, 120.0), (False, OTHERS_S)])
def test_time_a_refused_request_waited_for_memory_does_not_shorten_the_wait_of_the_next_request(
    held_by_requests, limit_s
):
    waiting = Waiting()
    request = waiting.add("a")
    assert waiting.queue.postpone(request, no_room(held_by_requests), 5.0) is None
    assert waiting.queue.postpone(request, no_room(held_by_requests), 5.0 + limit_s - 1) is None
    refusal = waiting.queue.postpone(request, no_room(held_by_requests), 5.0 + limit_s)
    assert refusal is not None and refusal.retryable
    waiting.requests.finish(request)
    assert waiting.queue.awaited_model is None
    again = waiting.add("a")
    assert waiting.queue.due(5.0 + limit_s) is again  # at once
    assert (
        waiting.queue.postpone(again, no_room(held_by_requests), 6.0 + limit_s) is None
    )  # and with a whole wait


@pytest.mark.parametrize("interrupted", [{"emitted": (1, 2)}, {"resumed": True}], ids=str)
def test_resumed_answer_may_wait_longer_than_a_new_request_for_memory_held_by_other_programs(interrupted):
    """An answer whose engine died before its first token was once refused as soon as a new request."""
    waiting = Waiting()
    request = waiting.add("a", **interrupted)
    assert waiting.queue.postpone(request, no_room(held_by_requests=False), 0.0) is None
    assert waiting.queue.postpone(request, no_room(held_by_requests=False), OTHERS_S + 1) is None
    assert waiting.queue.postpone(request, no_room(held_by_requests=False), 120.0) is not None


def test_next_request_waiting_for_memory_is_tried_at_once_when_the_first_is_cancelled():
    waiting = Waiting()
    first, second = waiting.add("a"), waiting.add("b")
    waiting.queue.postpone(first, no_room(), 0.0)
    assert waiting.queue.due(0.0) is None
    waiting.requests.finish(first)
    assert waiting.queue.due(0.0) is second
