"""Count the tokens that were drafted, and how many of them were accepted. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class DraftCounts:
    """Numbers of drafted (`guessed`) and of accepted tokens: `lookup_…` for drafts from the request's own
    text and grammar, `model_…` for drafts of the draft model.
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
        """Count one verified draft of `guessed` tokens, the first `accepted` of which were accepted. With
        `by_model`, it is a draft of the draft model; otherwise it comes from the request's text or grammar.
        """
        if by_model:
            self.model_guessed += guessed
            self.model_accepted += accepted
        else:
            self.lookup_guessed += guessed
            self.lookup_accepted += accepted
