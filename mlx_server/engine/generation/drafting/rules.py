"""What samplers and logits processors must offer so that their requests can be drafted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable


@runtime_checkable
class Rewindable(Protocol):
    """A sampler or logits processor whose state moves on with each call, and can be moved back."""

    def rewind(self, calls: int) -> None:
        """Undo the last `calls` calls."""


@runtime_checkable
class DraftRules(Protocol):
    """A logits processor that allows some tokens only, and so has a say in drafts."""

    @property
    def can_draft(self) -> bool:
        """Return True if the processor's calls can be undone now."""

    def draft_after(self, token: int, guessed: Sequence[int]) -> list[int]:
        """Return a draft in place of `guessed`, to follow `token`, which is the next one of the answer."""

    def allowed(self, guessed: Sequence[int]) -> list[int]:
        """Return the first of `guessed` that may follow the token that `draft_after` has taken in."""
