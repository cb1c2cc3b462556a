"""Divide texts into batches of similar length. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

MAX_BATCH_TOKENS = 2048
"""The most tokens, including padding, of one forward pass."""

MAX_PADDING_TOKENS = 256
"""The most padding tokens of one forward pass. They take as much time as other tokens, but each further pass
takes time, too."""

BESIDE_ANSWERS_TOKENS = 512
"""The most tokens of one forward pass while the answers of a language model wait for it. A layer then takes
about half as long as a step of the answers, if both models are small. Smaller passes take more time in all,
by a tenth with 256 tokens on two cores."""


class PendingTexts:
    """Texts that wait for their forward pass, the shortest first. `lengths` has the tokens of each text.

    In a batch, each text is padded to the longest one, unless `packs`: packed texts stand one after the
    other.
    """

    def __init__(self, lengths: Sequence[int], *, packs: bool) -> None:
        self._lengths, self._packs = lengths, packs
        self._left = deque(sorted(range(len(lengths)), key=lambda i: lengths[i]))

    def __len__(self) -> int:
        return len(self._left)

    def take(self, max_tokens: int = MAX_BATCH_TOKENS) -> list[int]:
        """Remove the texts of the next batch, and return their indices in `lengths`; [] if no text is left.

        A batch has at most `max_tokens` tokens, of which at most MAX_PADDING_TOKENS are padding, unless it is
        a single text.
        """
        batch, tokens = list[int](), 0
        while self._left:
            length = self._lengths[self._left[0]]
            padding = 0 if self._packs else length * len(batch) - tokens
            tokens_in_all = tokens + length + padding
            if batch and (tokens_in_all > max_tokens or padding > MAX_PADDING_TOKENS):
                break
            batch.append(self._left.popleft())
            tokens += length
        return batch
