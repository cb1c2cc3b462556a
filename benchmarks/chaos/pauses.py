"""Measure how long a stream paused because of a kill or an upgrade. Pure."""

from __future__ import annotations

import bisect
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

SEVERAL = "several at once"
"""The cause of a pause during which disturbances with different causes happened."""
NONE = "none"
MAX_DEATHS = 200
"""How many of the latest kills and upgrades are remembered. A stream that began before more of them is not
compared with the earliest.
"""


@dataclass
class Death:
    """One kill or upgrade, named by its `cause`. Times are in monotonic seconds.

    `replaced_at` is when the stack served again or the wait for that was given up; infinity until then.
    """

    cause: str
    at: float
    replaced_at: float = float("inf")


class Deaths:
    """Stores the latest MAX_DEATHS kills and upgrades, oldest first, and finds the pauses of streams that
    they caused.
    """

    def __init__(self) -> None:
        self._deaths: deque[Death] = deque(maxlen=MAX_DEATHS)

    def add(self, death: Death) -> None:
        """Record that a kill or an upgrade happens now. Later pauses of streams count as caused by it."""
        self._deaths.append(death)

    def cause_at(self, at: float) -> str:
        """Return the cause of the latest kill or upgrade before the time `at`; NONE if there was none."""
        earlier = [death.cause for death in self._deaths if death.at <= at]
        return earlier[-1] if earlier else NONE

    def pauses(self, pieces_at: Sequence[float]) -> Iterator[tuple[str, float]]:
        """Yield the cause and the length in seconds of each pause of a stream. `pieces_at` has the times at
        which the parts of the stream arrived.

        A pause is the longest gap between two parts that a kill or upgrade brought about. Its cause is the
        name of that kill or upgrade, such as `engine TERM`. A gap with different causes is yielded once, with
        the cause SEVERAL.
        """
        gaps: dict[tuple[float, float], str] = {}
        for death in self._deaths:
            gap = longest_gap(pieces_at, death)
            if gap is not None:
                gaps[gap] = death.cause if gaps.get(gap, death.cause) == death.cause else SEVERAL
        for (begin, end), cause in gaps.items():
            yield cause, end - begin


def longest_gap(pieces_at: Sequence[float], death: Death) -> tuple[float, float] | None:
    """Return the longest gap between two successive parts of a stream that a kill may have caused, as the
    times of its begin and end. Return None unless parts arrived both before and after the kill.

    The first gap considered begins with the last part before the kill. Later gaps are considered too if they
    begin before the stack serves again, because an engine that shuts down gracefully still sends some tokens
    after the signal. `pieces_at` has the times at which the parts arrived, in monotonic seconds.
    """
    first = bisect.bisect(pieces_at, death.at)
    if not first or first == len(pieces_at):
        return None
    gaps = zip(pieces_at[first - 1 :], pieces_at[first:], strict=False)
    return max((gap for gap in gaps if gap[0] <= death.replaced_at), key=lambda gap: gap[1] - gap[0])
