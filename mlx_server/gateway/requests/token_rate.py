"""Measure how many tokens per second a request gets, over the last few seconds. Pure.

No extra work is done for each token: the request counts its tokens anyway, and that count is sampled
regularly.
"""

from __future__ import annotations

from collections import deque

WINDOW_S = 4.0
SAMPLES = 9
"""The number of samples in the window, which are taken every half second."""
LEAST_S = 0.2
"""The shortest time over which a rate is computed. Over less time, a few tokens that arrive together would
look like a high rate."""


class TokenRate:
    """Holds the newest samples of one request's token count. Times are monotonic seconds."""

    __slots__ = ("_samples",)

    def __init__(self) -> None:
        self._samples: deque[tuple[float, int]] = deque(maxlen=SAMPLES)

    def sample(self, now: float, tokens: int) -> None:
        """Record that the request has received `tokens` tokens by `now`."""
        self._samples.append((now, tokens))

    def per_s(self, now: float, tokens: int) -> float | None:
        """Return the tokens per second since the oldest sample of the last WINDOW_S seconds. `tokens` is how
        many tokens the request has received by `now`. Return None if there is no such sample, or if it is
        less than LEAST_S seconds old.
        """
        since = next((sample for sample in self._samples if now - sample[0] <= WINDOW_S), None)
        if since is None or now - since[0] < LEAST_S:
            return None
        return (tokens - since[1]) / (now - since[0])
