"""Decide by an answer's grammar which tokens may come next. Pure: llguidance is behind the protocol
`Matcher`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from itertools import takewhile
from typing import NamedTuple, Protocol


class Matcher(Protocol):
    """The methods of llguidance's `LLMatcher` that are used.

    A bitmask has one bit for each token of the vocabulary, which is set if the token may come next. The
    lowest bit of the first byte belongs to token 0.
    """

    def consume_token(self, token: int, /) -> bool: ...
    def rollback(self, num_tokens: int, /) -> bool: ...
    def compute_ff_tokens(self) -> list[int]: ...
    def validate_tokens(self, tokens: list[int], /) -> int: ...
    def is_stopped(self) -> bool: ...
    def is_error(self) -> bool: ...
    def compute_bitmask(self) -> bytes: ...


class Gate(Protocol):
    """Decides from which token on a grammar applies to one answer. `opens_after` is called with each token,
    and returns True if the grammar applies to the next one.
    """

    def opens_after(self, token: int, /) -> bool: ...


class GateAfter:
    """A `Gate` that opens when the sequence `tokens`, such as the end of the model's thinking, has occurred
    in the answer. The grammar applies from the next token on.
    """

    def __init__(self, tokens: Sequence[int]) -> None:
        self._tokens = tuple(tokens)
        self._recent: tuple[int, ...] = ()

    def opens_after(self, token: int) -> bool:
        """Advance by `token`. Return True if the grammar applies to the next token."""
        self._recent = (*self._recent, token)[-len(self._tokens) :]
        return self._recent == self._tokens


MAX_REWIND = 64
"""How many tokens a constraint can be rewound by."""


class _Step(NamedTuple):
    """The effect of one token: whether the answer had ended before it, and whether the matcher
    consumed it.
    """

    ended_before: bool
    was_consumed: bool


class Constraint:
    """Constrains one answer by the grammar of `matcher`. Its user calls `advance` with each token, and
    `allowed_mask` before the next token. `end_tokens` are the tokens that end an answer.

    With a `gate`, the grammar does not apply before the gate has opened, so that a model that thinks first is
    not constrained until the end of its thinking.
    """

    def __init__(self, matcher: Matcher, end_tokens: frozenset[int], gate: Gate | None = None) -> None:
        self._matcher = matcher
        self._end_tokens = end_tokens
        self._gate = gate
        self._ended = False
        self._steps: deque[_Step] = deque(maxlen=MAX_REWIND)

    @property
    def is_active(self) -> bool:
        """Return True if the grammar applies to the next token."""
        return self._gate is None

    @property
    def must_end(self) -> bool:
        """Return True if only an end token may come next, because the answer is complete, or the matcher has
        failed.
        """
        return self._ended or self._matcher.is_stopped() or self._matcher.is_error()

    def advance(self, token: int) -> None:
        """Advance by `token`, the next token of the answer. If the grammar has a gate, which lets it begin
        only after the thinking, only the gate advances until it opens. The token that opens the gate does not
        advance the grammar.
        """
        ended_before, was_consumed = self._ended, False
        if self._gate is not None:
            if self._gate.opens_after(token):
                self._gate = None
        elif token in self._end_tokens:
            self._ended = True
        elif not self.must_end:
            was_consumed = self._matcher.consume_token(token)
        self._steps.append(_Step(ended_before, was_consumed))

    def rewind(self, tokens: int) -> None:
        """Undo the last `tokens` calls of `advance`, at most MAX_REWIND.

        The grammar must have been active in all of these calls. Raises RuntimeError if the matcher cannot be
        rewound.
        """
        undone = [self._steps.pop() for _ in range(tokens)]
        if not undone:
            return
        self._ended = undone[-1].ended_before
        consumed = sum(step.was_consumed for step in undone)
        if consumed and not self._matcher.rollback(consumed):
            raise RuntimeError("the grammar cannot be moved back")

    def forced_tokens(self) -> list[int]:
        """Return the tokens that must come next because the grammar allows no other text; often []."""
        return [] if not self.is_active or self.must_end else self._matcher.compute_ff_tokens()

    def allowed_prefix(self, tokens: Sequence[int]) -> list[int]:
        """Return the longest beginning of `tokens` that the grammar allows next, up to but without the first
        end token. Return [] if the grammar does not apply yet, or if the answer must end.

        The matcher's state does not change. The tokens are only validated, because a matcher that has
        consumed a token that is not allowed cannot be rewound.
        """
        if not self.is_active or self.must_end:
            return []
        allowed = list(tokens[: self._matcher.validate_tokens(list(tokens))])
        return list(takewhile(lambda token: token not in self._end_tokens, allowed))

    def allowed_mask(self) -> bytes | None:
        """Return the bitmask of the tokens that may come next.

        Return None in two cases. If `must_end` is True, only an end token may come next. Otherwise, the
        grammar does not apply yet, and any token may come next.
        """
        if not self.is_active or self.must_end:
            return None
        mask = self._matcher.compute_bitmask()
        return None if self.must_end else mask
