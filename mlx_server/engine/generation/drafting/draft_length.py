"""Decide how many tokens to draft for one request, by how many of its earlier drafted tokens were accepted.
Pure.
"""

from __future__ import annotations

FIRST_LENGTH, MOST_LENGTH = 4, 16
_WORST_BALANCE, _BEST_BALANCE = -2.0, 4.0
_FIRST_PAUSE_TOKENS, _LONGEST_PAUSE_TOKENS = 16, 1024


class DraftLength:
    """Decides how many tokens the next draft of one request should have.

    A draft that is accepted whole makes the next one longer; any other draft makes it about as long as what
    was accepted. A balance rises by 1 with each accepted token, and falls with each drafted token by its cost
    (see `record`). When the balance falls below -2, drafting pauses until 16 tokens have been generated
    without a draft. Each further pause is twice as long as the one before; once more than half of a draft has
    been accepted, the next pause is one of 16 tokens again.
    """

    def __init__(self) -> None:
        self._length = FIRST_LENGTH
        self._balance = 0.0
        self._pause_tokens = 0
        self._next_pause_tokens = _FIRST_PAUSE_TOKENS

    @property
    def tokens(self) -> int:
        """Return the number of tokens to draft; 0 during a pause."""
        return 0 if self._pause_tokens > 0 else self._length

    def record_plain(self) -> None:
        """Record a token that was generated without a draft."""
        self._pause_tokens = max(self._pause_tokens - 1, 0)

    def record(self, guessed: int, accepted: int, cost_of_a_guess: float) -> None:
        """Record a draft of `guessed` tokens, the first `accepted` of which were accepted.

        `cost_of_a_guess` is the time that drafting and verifying one token takes, expressed in tokens: how
        many tokens all requests together would get in that time without drafts.
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
