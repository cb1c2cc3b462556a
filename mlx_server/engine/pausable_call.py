"""Pause a function call in its middle, so that other work can be done on the same thread before it continues.

MLX's arrays and streams belong to one thread. A long prompt is processed in slices, between the steps that
produce the next tokens of running answers. One slice takes the time of many such steps, but mlx-lm computes
it in a single call. So that call runs in a greenlet, which has its own stack within the thread. At a pause
point, the call may switch back to its caller, which makes a step of the answers and then lets the call
continue.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import mlx.core as mx
from greenlet import getcurrent, greenlet

T = TypeVar("T")


def pause_point() -> None:
    """Pause the running PausableCall if its time is over. Outside of a PausableCall, do nothing. Long
    computations call this wherever they can be interrupted.
    """
    if _running:
        _running[-1]._reach_pause_point()


def is_pausable() -> bool:
    """Return True if the code runs within a PausableCall."""
    return bool(_running)


class PausableCall(Generic[T]):
    """A call of `function` that can be paused at its pause points, the places where code that `function` runs
    calls `pause_point`. It begins with the first `go_on`. Times are in seconds.

    `computed_s` is how long it has run so far, without its pauses. `longest_part_s` is the longest time
    between two pause points. `pause_points` counts the pause points that were reached.
    """

    def __init__(self, function: Callable[[], T]) -> None:
        self._function = function
        self._greenlet = greenlet(self._run)
        self._result: list[T] = []
        self._until_s = self._part_began_s = 0.0
        self.computed_s = self.longest_part_s = 0.0
        self.pause_points = 0

    @property
    def result(self) -> T:
        """Return the function's result. Raises IndexError if the call has not ended, or if the function
        raised an exception, which `go_on` has then raised.
        """
        return self._result[0]

    def go_on(self, until_s: float) -> bool:
        """Begin or continue the call. Return True if it has ended, and False if it is paused. An exception of
        the function is raised here.

        The call pauses at the pause point whose time is nearest to `until_s` (monotonic seconds). To find it,
        each pause point assumes that the next one follows after as many seconds as have passed since the last
        one.
        """
        outer = mx.default_stream(mx.default_device())
        self._until_s, self._part_began_s = until_s, time.monotonic()
        _running.append(self)
        try:
            self._greenlet.switch()
        finally:
            _running.pop()
            mx.set_default_stream(outer)  # the call may have been paused within `with mx.stream(…)`
        return bool(self._greenlet.dead)

    def close(self) -> None:
        """End a paused call. Its `finally` clauses are run."""
        self._greenlet.throw()

    def _run(self) -> None:
        self._result.append(self._function())
        self._end_part()

    def _reach_pause_point(self) -> None:
        self.pause_points += 1
        part_s = self._end_part()
        if self._part_began_s + part_s / 2 < self._until_s:
            return
        inner = mx.default_stream(mx.default_device())
        getcurrent().parent.switch()
        mx.set_default_stream(inner)

    def _end_part(self) -> float:
        """Record that a part of the call, which is the time from one pause point to the next, has ended.
        Return how many seconds the part took.
        """
        now = time.monotonic()
        part_s, self._part_began_s = now - self._part_began_s, now
        self.computed_s += part_s
        self.longest_part_s = max(self.longest_part_s, part_s)
        return part_s


_running: list[PausableCall[Any]] = []
"""The calls that are running, the innermost last. Only one thread makes such calls."""
