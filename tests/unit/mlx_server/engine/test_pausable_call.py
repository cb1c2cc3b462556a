"""A call that is paused continues where it was, whatever is done meanwhile."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial

import pytest

mx = pytest.importorskip("mlx.core")

from hypothesis import given  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from mlx_server.engine.pausable_call import PausableCall, is_pausable, pause_point  # noqa: E402

ALWAYS, NEVER = 0.0, float("inf")


def count_points(points: int) -> int:
    for _ in range(points):
        pause_point()
    return points


def test_pausable_call_without_a_reason_to_pause_runs_to_its_end():
    call = PausableCall(lambda: count_points(3))
    assert call.go_on(NEVER)
    assert (call.result, call.pause_points) == (3, 3)


@given(st.lists(st.booleans(), min_size=1, max_size=20))
def test_pausable_call_pauses_at_each_due_pause_point_and_continues_there(pauses: list[bool]):
    reached: list[int] = []

    def count() -> int:
        for number in range(len(pauses)):
            reached.append(number)
            pause_point()
        return len(reached)

    call, at = PausableCall(count), 0
    while True:
        # With NEVER it runs on to the end; with ALWAYS to the next point only.
        until = ALWAYS if pauses[min(at, len(pauses) - 1)] else NEVER
        if call.go_on(until):
            break
        at += 1
        assert reached == list(range(at))
    assert call.result == len(pauses)


def test_two_pausable_calls_that_take_turns_each_return_their_own_result():
    def letters(word: str) -> Iterator[str]:
        for letter in word:
            pause_point()
            yield letter

    def join(word: str) -> str:
        return "".join(letters(word))

    calls = [PausableCall(partial(join, word)) for word in ("greenlet", "mlx")]
    ended: set[int] = set()
    while len(ended) < 2:
        ended |= {number for number, call in enumerate(calls) if number not in ended and call.go_on(ALWAYS)}
    assert [call.result for call in calls] == ["greenlet", "mlx"]


def test_exception_of_a_pausable_call_is_raised_by_the_resumption_that_reaches_it():
    def fails() -> None:
        pause_point()
        raise ValueError("in the second part")

    call = PausableCall(fails)
    assert not call.go_on(ALWAYS)
    with pytest.raises(ValueError, match="in the second part"):
        call.go_on(ALWAYS)
    assert not is_pausable()


def test_mlx_stream_of_a_paused_call_does_not_change_the_stream_of_its_caller():
    own, seen = mx.new_stream(mx.cpu), []

    def within_own_stream() -> None:
        with mx.stream(own):
            pause_point()
            seen.append(mx.default_stream(mx.cpu))

    before = mx.default_stream(mx.cpu)
    with mx.stream(mx.cpu):
        call = PausableCall(within_own_stream)
        call.go_on(ALWAYS)
        assert mx.default_stream(mx.cpu) == before
        call.go_on(ALWAYS)
        assert mx.default_stream(mx.cpu) == before
    assert seen == [own]


def test_closed_pausable_call_runs_its_finally_clauses_and_nothing_else():
    ended: list[str] = []

    def runs() -> None:
        try:
            pause_point()
            ended.append("went on")
        finally:
            ended.append("cleaned up")

    call = PausableCall(runs)
    call.go_on(ALWAYS)
    call.close()
    assert ended == ["cleaned up"]


def test_computing_time_of_a_pausable_call_excludes_its_pauses():
    call = PausableCall(lambda: count_points(1))
    call.go_on(ALWAYS)
    began_s = time.monotonic()
    while time.monotonic() - began_s < 0.05:
        pass
    call.go_on(ALWAYS)
    assert 0 < call.longest_part_s <= call.computed_s < 0.05


def test_pause_point_outside_of_a_pausable_call_does_nothing():
    assert not is_pausable()
    pause_point()
