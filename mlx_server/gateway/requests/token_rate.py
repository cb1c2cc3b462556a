"""Measure how many tokens a second a request gets, over the last few seconds. Pure.

Nothing is done for each token: the request counts its tokens anyway, and that count is sampled regularly.
"""

from __future__ import annotations

from collections import deque

WINDOW_S = 4.0
SAMPLES = 9
"""One each half second, over the window."""
LEAST_S = 0.2
"""Over less time than this, a few tokens that arrive together would look like a high rate."""


class TokenRate:
    """The newest samples of one request's token count. Times are monotonic seconds."""

    __slots__ = ("_samples",)

    def __init__(self) -> None:
        self._samples: deque[tuple[float, int]] = deque(maxlen=SAMPLES)

    def sample(self, now: float, tokens: int) -> None:
        """Record that the request has had `tokens` tokens by `now`."""
        self._samples.append((now, tokens))

    def per_s(self, now: float, tokens: int) -> float | None:
        """Return the tokens a second up to `now`, when the request has had `tokens`; None if unknown."""
        since = next((sample for sample in self._samples if now - sample[0] <= WINDOW_S), None)
        if since is None or now - since[0] < LEAST_S:
            return None
        return (tokens - since[1]) / (now - since[0])
