"""The methods that samplers and logits processors must have if their requests are to be drafted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable


@runtime_checkable
class Rewindable(Protocol):
    """A sampler or logits processor whose state advances with each call, and can be rewound."""

    def rewind(self, calls: int) -> None:
        """Undo the last `calls` calls."""


@runtime_checkable
class DraftRules(Protocol):
    """A logits processor that allows only some tokens, and therefore removes tokens from drafts and adds
    tokens to them.
    """

    @property
    def can_draft(self) -> bool:
        """Return True if the processor's calls can be undone at this time."""

    def draft_after(self, token: int, guessed: Sequence[int]) -> list[int]:
        """Advance the processor by `token`, the next token of the answer, and return a draft to follow it, in
        place of `guessed`.
        """

    def allowed(self, guessed: Sequence[int]) -> list[int]:
        """Return the tokens at the start of `guessed` that may follow the token last given to
        `draft_after`.
        """
