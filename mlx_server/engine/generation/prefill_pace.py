"""Decide how many prompt tokens a step processes while other answers run. Pure.

A step computes the next tokens of the running answers. It also processes prompts, in slices: a slice is the
next tokens of one or more prompts, up to a certain number of each. The answers get no tokens while a slice is
processed, and 512 prompt tokens take seconds on a small machine. So slices are small while answers run:

- The computation of some models can be paused in the middle of a slice, at certain points. A step then
  processes only a part of a slice, for a limited time. A slice must still be small, because the time from one
  such point to the next depends on the slice's size.
- The computation of other models cannot be paused, so each step processes a whole slice. A slice is so small
  that the answers keep about a third of the pace that they have without a prompt.

Without running answers nothing waits, so slices are as large as the settings allow, which is fastest.
"""

from __future__ import annotations

from dataclasses import dataclass

FEWEST_TOKENS = 16
"""Smaller slices would take nearly as long, because most of their time goes into reading the weights."""
_STEPS_UNTIL_PAUSE = 0.8
"""How long a step processes a slice before pausing it, as a multiple of a step without a slice."""
_PART_STEPS = 0.4
"""How long a slice may run between two points at which it can be paused, as a multiple of a step without a
slice. A step with a slice then takes up to 2 times as long as a step without one, and somewhat longer
because the slice has emptied the processor's caches. Nearly all such steps take at most 3 times as long."""
_PAUSED_SLICE_STEPS = 8.0
"""How long a slice that can be paused may take in all, as a multiple of a step without a slice. It is limited
because a prompt that arrives meanwhile waits for the slice's end."""
_SLICE_STEPS = 1.6
"""How long a slice that cannot be paused may take, as a multiple of a step without a slice. A step with a
slice then takes 2.6 times as long as a step without one."""
_MOST_CHANGE = 1.5
"""The largest factor by which the size of slices changes at once, because a single step may be slow by
chance."""
_WEIGHT = 0.2
"""The weight of the newest step in the moving average."""


@dataclass
class PrefillPace:
    """Decides how many tokens of each prompt a slice has, so that running answers do not wait long for their
    next tokens. A slice is the next tokens of one or more prompts, which are processed together.

    The number is adapted to the recorded durations of earlier slices, and of steps without a slice.
    `most_tokens` is the largest number of tokens of each prompt in a slice.
    """

    most_tokens: int
    _step_s: float | None = None
    _tokens: float = 2.0 * FEWEST_TOKENS

    @property
    def knows_step(self) -> bool:
        """Return True if `record_step` has recorded how long a step takes for the running answers alone. The
        size of slices is adapted, and a slice can be paused, only after that.
        """
        return self._step_s is not None

    @property
    def until_pause_s(self) -> float:
        """Return for how many seconds a step may process a slice of the prompts, after it has computed the
        next tokens of the running answers; the slice is then paused. This is somewhat less than an
        average step without a slice takes; infinity while no step's duration has been recorded.
        """
        return float("inf") if self._step_s is None else _STEPS_UNTIL_PAUSE * self._step_s

    def slice_tokens(self, answers: int) -> int:
        """Return how many tokens of each prompt the next slice processes while `answers` answers run."""
        return self.most_tokens if not answers else max(min(int(self._tokens), self.most_tokens), 1)

    def record_step(self, seconds: float) -> None:
        """Record that it took `seconds` to compute the next tokens of the running answers in a step without
        drafted tokens. The slice of a prompt that the step may also have processed is not included. The
        average of these durations determines the size of slices.
        """
        known = self._step_s
        self._step_s = seconds if known is None else known + _WEIGHT * (seconds - known)

    def record_slice(self, tokens: int, seconds: float, longest_part_s: float | None = None) -> None:
        """Record that a slice, with `tokens` tokens of each of its prompts, took `seconds` while answers ran.
        `seconds` does not include the time in which the slice was paused.

        `longest_part_s` is the longest time between two points at which the slice could be paused; None if it
        could not be paused at all.
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
