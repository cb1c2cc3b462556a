"""Measure what drafting with the draft model costs, compared to steps without a draft. Pure."""

from __future__ import annotations

_NEW_SHARE = 0.2
"""The weight of a new measurement in the moving average."""
_MOST_GROWTH = 3.0
"""A step counts as at most this many times the average, since a longer one was held up by something else."""


class StepCosts:
    """Computes the cost of drafting a token with the draft model: the number of tokens that could have been
    generated in the same time without drafting.

    For this, it keeps the average duration of a step without a draft, for each number of requests that a step
    serves.
    """

    def __init__(self) -> None:
        self._plain_s: dict[int, float] = {}

    def record_plain(self, requests: int, seconds: float) -> None:
        """Record that a step without a draft, for `requests` requests, took `seconds`."""
        average = self._plain_s.setdefault(requests, seconds)
        new = min(seconds, _MOST_GROWTH * average)
        self._plain_s[requests] = average + _NEW_SHARE * (new - average)

    def cost_of_a_guess(self, requests: int, seconds: float, guessed: int) -> float:
        """Return the cost of drafting one token with the draft model, which took `seconds` to draft `guessed`
        tokens.

        One drafted token took `seconds` / `guessed`. Its cost is the number of tokens that steps without a
        draft would have generated in that time, for all `requests` requests together. The cost is at most 1,
        because a drafted token saves at most the generation of one token. It is 0 if `guessed` is 0, or if no
        step without a draft has been measured yet.
        """
        if not guessed or not self._plain_s:
            return 0.0
        nearest = min(self._plain_s, key=lambda measured: abs(measured - requests))
        plain_s = max(self._plain_s[nearest], 1e-6)
        return min(requests * seconds / plain_s / guessed, 1.0)
