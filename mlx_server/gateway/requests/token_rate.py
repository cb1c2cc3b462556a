"""How fast a request gets tokens, over the last few seconds. Pure.

A token costs nothing here: its request counts it anyway, and that count is sampled now and then.
"""

from __future__ import annotations

from collections import deque

WINDOW_S = 4.0
SAMPLES = 9
"""One each half second, over the window."""
LEAST_S = 0.2
"""Over less time than this, a few tokens that arrive together would look like a high rate."""


class TokenRate:
    """The latest counts of one request's tokens. Times are monotonic seconds."""

    __slots__ = ("_samples",)

    def __init__(self) -> None:
        self._samples: deque[tuple[float, int]] = deque(maxlen=SAMPLES)

    def sample(self, now: float, tokens: int) -> None:
        """Note how many tokens the request has had by `now`."""
        self._samples.append((now, tokens))

    def per_s(self, now: float, tokens: int) -> float | None:
        """Return the tokens a second up to `now`, when the request has had `tokens`; None if unknown."""
        since = next((sample for sample in self._samples if now - sample[0] <= WINDOW_S), None)
        if since is None or now - since[0] < LEAST_S:
            return None
        return (tokens - since[1]) / (now - since[0])
