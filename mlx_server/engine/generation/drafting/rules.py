"""The methods that some samplers and logits processors must have before tokens may be drafted for their
requests: those of `Rewindable` if their state advances with each call, and those of `DraftRules` if they
allow only some tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable


@runtime_checkable
class Rewindable(Protocol):
    """A sampler or logits processor whose state advances with each call, and can be rewound."""

    def rewind(self, calls: int) -> None:
        """Restore the state that this sampler or logits processor had before its last `calls` calls."""


@runtime_checkable
class DraftRules(Protocol):
    """A logits processor that allows only some tokens, such as one that enforces a grammar. It removes from a
    draft the tokens that it does not allow, and drafts tokens itself where it allows only one.
    """

    @property
    def can_draft(self) -> bool:
        """Return True if tokens may be drafted at this time. This logits processor is called for each drafted
        token, and its calls for rejected tokens must be undone. While that is impossible, for example before
        a grammar begins to apply, the result is False.
        """

    def draft_after(self, token: int, guessed: Sequence[int]) -> list[int]:
        """Advance this processor by `token`, the next token of the answer, and return the draft to verify
        after it: the tokens that must follow because this processor allows no others, or else the tokens at
        the start of `guessed` that it allows. `guessed` is a draft from another source.
        """

    def allowed(self, guessed: Sequence[int]) -> list[int]:
        """Return the longest beginning of `guessed` whose tokens this logits processor allows after the token
        that was last passed to `draft_after`. The processor's state does not change.
        """
