"""Decide how much of a prompt a step processes while other answers run. Pure.

The tokens of running answers wait for what a step processes of a prompt. A slice of 512 tokens takes seconds
on a small machine. If a slice can be paused, each step gets a part of it, and the size of slices follows from
how long the parts take between which it can be paused. If it cannot, a step processes a whole slice, which is
cut to the time that leaves the answers about a third of their own pace. Without running answers nothing
waits, and slices are as large as the settings allow, which is the fastest.
"""

from __future__ import annotations

from dataclasses import dataclass

FEWEST_TOKENS = 16
"""Smaller slices would take nearly as long, because reading the weights takes most of their time."""
_STEPS_UNTIL_PAUSE = 1.0
"""For how long a slice is processed in a step before it is paused, in steps without one."""
_PART_STEPS = 0.4
"""How long a part of a slice may take that cannot be paused. A step then takes 2.4 steps, and some more since
the slice has emptied the processor's caches: nearly all remain within three."""
_PAUSED_SLICE_STEPS = 8.0
"""How long a slice may take that can be paused: a prompt that arrives meanwhile waits for its end."""
_SLICE_STEPS = 1.6
"""How long a slice may take that cannot be paused, in steps without one. A step then takes 2.6 steps."""
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

    @property
    def until_pause_s(self) -> float:
        """Return for how many seconds a slice is processed before it is paused."""
        return float("inf") if self._step_s is None else _STEPS_UNTIL_PAUSE * self._step_s

    def slice_tokens(self, answers: int) -> int:
        """Return how many tokens of each prompt the next slice has while `answers` answers run."""
        return self.most_tokens if not answers else max(min(int(self._tokens), self.most_tokens), 1)

    def record_step(self, seconds: float) -> None:
        """Record how long a step of the running answers took without a slice and without guesses."""
        known = self._step_s
        self._step_s = seconds if known is None else known + _WEIGHT * (seconds - known)

    def record_slice(self, tokens: int, seconds: float, longest_part_s: float | None = None) -> None:
        """Record how long a slice of `tokens` of each prompt took while answers ran, without the steps of
        the answers. `longest_part_s` is the longest time for which it could not be paused; None if it could
        not be paused at all.
        """
        if self._step_s is None or tokens < self.slice_tokens(1):
            return  # the end of a prompt: it says little about slices of full size
        if longest_part_s is None:
            share = _SLICE_STEPS * self._step_s / max(seconds, 1e-6)
        else:
            share = self._step_s * min(
                _PART_STEPS / max(longest_part_s, 1e-6), _PAUSED_SLICE_STEPS / max(seconds, 1e-6)
            )
        factor = min(max(share, 1 / _MOST_CHANGE), _MOST_CHANGE)
        self._tokens = min(max(self._tokens * factor, FEWEST_TOKENS), self.most_tokens)
