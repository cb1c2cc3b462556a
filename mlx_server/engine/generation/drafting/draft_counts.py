"""How many tokens were guessed, and how many guesses were right. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class DraftCounts:
    """Numbers of guessed and of accepted tokens: from the text and the grammar (`lookup`), and from the draft
    model (`model`).
    """

    lookup_guessed: int = 0
    lookup_accepted: int = 0
    model_guessed: int = 0
    model_accepted: int = 0

    @property
    def guessed(self) -> int:
        return self.lookup_guessed + self.model_guessed

    @property
    def accepted(self) -> int:
        return self.lookup_accepted + self.model_accepted

    def add(self, guessed: int, accepted: int, *, by_model: bool) -> None:
        """Count one checked draft of `guessed` tokens, the first `accepted` of which were right."""
        if by_model:
            self.model_guessed += guessed
            self.model_accepted += accepted
        else:
            self.lookup_guessed += guessed
            self.lookup_accepted += accepted
