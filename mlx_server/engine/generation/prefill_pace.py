"""Decide how many tokens of a prompt a step processes while other answers run. Pure.

The tokens of running answers wait for the slice of the prompt in the same step. A slice of 512 tokens takes
seconds on a small machine. So slices are cut to the time that leaves the answers about a third of their own
pace. Without running answers nothing waits, and slices are as large as the settings allow, which is the
fastest.
"""

from __future__ import annotations

from dataclasses import dataclass

FEWEST_TOKENS = 16
"""Smaller slices would take nearly as long, because reading the weights takes most of their time."""
_SLICE_STEPS = 1.6
"""How long a slice may take, in steps without one. A step with a slice then takes 2.6 steps: some remain
within three although they vary."""
_MOST_CHANGE = 1.5
"""How many times as large, or as small, a slice may be as the one before: a single step may be slow by
chance."""
_WEIGHT = 0.2
"""What the newest step counts in the average."""


@dataclass
class PrefillPace:
    """The size of slices. `most_tokens` is the largest; it counts the tokens of one prompt."""

    most_tokens: int
    _step_s: float | None = None
    _tokens: float = 2.0 * FEWEST_TOKENS

    @property
    def knows_step(self) -> bool:
        """Return True if a step without a slice has been recorded, by which slices are sized."""
        return self._step_s is not None

    def slice_tokens(self, answers: int) -> int:
        """Return how many tokens of each prompt the next step processes while `answers` answers run."""
        return self.most_tokens if not answers else max(min(int(self._tokens), self.most_tokens), 1)

    def record_step(self, seconds: float) -> None:
        """Record how long a step of the running answers took without a slice and without guesses."""
        known = self._step_s
        self._step_s = seconds if known is None else known + _WEIGHT * (seconds - known)

    def record_slice(self, tokens: int, seconds: float) -> None:
        """Record how long a step took that processed `tokens` of each prompt while answers ran."""
        if self._step_s is None or tokens < self.slice_tokens(1):
            return  # the end of a prompt: it says little about slices of full size
        slice_s = max(seconds - self._step_s, 1e-6)
        factor = min(max(_SLICE_STEPS * self._step_s / slice_s, 1 / _MOST_CHANGE), _MOST_CHANGE)
        self._tokens = min(max(self._tokens * factor, FEWEST_TOKENS), self.most_tokens)
