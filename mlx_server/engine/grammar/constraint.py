"""What an answer's next token may be, as its grammar has it. Pure: the grammar itself is behind `Matcher`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class Matcher(Protocol):
    """The part of llguidance's `LLMatcher` that is used. A bitmask has one bit a token, the lowest first."""

    def consume_token(self, token: int, /) -> bool: ...
    def is_stopped(self) -> bool: ...
    def is_error(self) -> bool: ...
    def compute_bitmask(self) -> bytes: ...


class Constraint:
    """Follows one answer. `wake_after`: the grammar holds only once these tokens have been seen.

    A model that thinks first is not held to the grammar in its thoughts, so it sleeps to the thought's end.
    """

    def __init__(self, matcher: Matcher, end_tokens: frozenset[int], wake_after: Sequence[int] = ()) -> None:
        self._matcher = matcher
        self._end_tokens = end_tokens
        self._wake_after = tuple(wake_after)
        self._last: tuple[int, ...] = ()
        self._over = False

    @property
    def asleep(self) -> bool:
        return bool(self._wake_after)

    @property
    def over(self) -> bool:
        """Nothing but the end may follow: the text is whole, or the grammar can no longer be followed."""
        return self._over or self._matcher.is_stopped() or self._matcher.is_error()

    def advance(self, token: int) -> None:
        """The answer goes on with `token`."""
        if self.asleep:
            self._last = (*self._last, token)[-len(self._wake_after) :]
            if self._last == self._wake_after:
                self._wake_after = ()
        elif token in self._end_tokens:
            self._over = True
        elif not self.over:
            self._matcher.consume_token(token)

    def allowed(self) -> bytes | None:
        """The bitmask of the tokens that may follow; None where `over` or `asleep` says it all."""
        if self.asleep or self.over:
            return None
        mask = self._matcher.compute_bitmask()
        return None if self.over else mask
