"""What guessing costs a draft model, measured against steps without a draft. Pure."""

from __future__ import annotations

_NEW_SHARE = 0.2
"""The share of a new measurement in the average."""
_MOST_GROWTH = 3.0
"""A step that took longer than this many times the average was held up by something else."""


class StepCosts:
    """The average duration of a step without a draft, by the number of requests that it serves."""

    def __init__(self) -> None:
        self._plain_s: dict[int, float] = {}

    def record_plain(self, requests: int, seconds: float) -> None:
        """Record that a step without a draft took `seconds`."""
        average = self._plain_s.setdefault(requests, seconds)
        new = min(seconds, _MOST_GROWTH * average)
        self._plain_s[requests] = average + _NEW_SHARE * (new - average)

    def cost_of_a_guess(self, requests: int, seconds: float, guessed: int) -> float:
        """Return the cost of each of `guessed` tokens, which together took `seconds` to guess.

        The cost is the number of tokens that steps without a draft would have given in that time; 0 if no
        such step was measured yet. It is 1 at most: a guess can save no more than one token.
        """
        if not guessed or not self._plain_s:
            return 0.0
        nearest = min(self._plain_s, key=lambda measured: abs(measured - requests))
        plain_s = max(self._plain_s[nearest], 1e-6)
        return min(requests * seconds / plain_s / guessed, 1.0)
