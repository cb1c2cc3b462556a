"""Decide how many tokens to guess for one request, by how its earlier guesses fared. Pure."""

from __future__ import annotations

FIRST_LENGTH, MOST_LENGTH = 4, 16
_STEP_MS, _TOKEN_MS = 70.0, 13.0
"""What a step takes, and what each token in it adds: measured for a model of 135 million weights on two
cores. Only their relation counts."""
_WORST_BALANCE, _BEST_BALANCE = -2.0, 4.0
_FIRST_PAUSE_TOKENS, _LONGEST_PAUSE_TOKENS = 16, 1024


def cost_of_a_guess(requests: int, computed: int, guessed: int) -> float:
    """Return what a guessed token costs, in tokens that a step without drafts would give in the same time.

    The step gives a token to each of `requests`, and computes `computed` further ones for `guessed` guesses:
    the rows of a batch are as long as the longest draft. The more requests run, the more a guess costs,
    because a step without drafts gives more tokens.
    """
    return computed / guessed * _TOKEN_MS * requests / (_STEP_MS + _TOKEN_MS * requests)


class DraftLength:
    """How many tokens the next draft of one request should have.

    Drafts grow while they are accepted whole. `balance` is the steps that drafts have saved, less what they
    cost. When it falls too low, drafting pauses, and each further pause is twice as long.
    """

    def __init__(self) -> None:
        self._length = FIRST_LENGTH
        self._balance = 0.0
        self._pause_tokens = 0
        self._next_pause_tokens = _FIRST_PAUSE_TOKENS

    @property
    def tokens(self) -> int:
        """Return the number of tokens to guess; 0 during a pause."""
        return 0 if self._pause_tokens > 0 else self._length

    def record_plain(self) -> None:
        """Record a token that was generated without a draft."""
        self._pause_tokens = max(self._pause_tokens - 1, 0)

    def record(self, guessed: int, accepted: int, cost_of_a_guess: float) -> None:
        """Record a draft of `guessed` tokens, the first `accepted` of which were right.

        `cost_of_a_guess` is in tokens, as the function of that name returns it.
        """
        self._balance = min(self._balance + accepted - cost_of_a_guess * guessed, _BEST_BALANCE)
        if accepted == guessed:
            self._length = min(2 * self._length, MOST_LENGTH)
        else:
            self._length = max(accepted + 1, 2)
        if accepted > guessed // 2:
            self._next_pause_tokens = _FIRST_PAUSE_TOKENS
        if self._balance < _WORST_BALANCE:
            self._balance = 0.0
            self._pause_tokens = self._next_pause_tokens
            self._next_pause_tokens = min(2 * self._next_pause_tokens, _LONGEST_PAUSE_TOKENS)
            self._length = FIRST_LENGTH
