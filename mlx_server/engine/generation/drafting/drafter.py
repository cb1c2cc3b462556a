"""The drafts of a step, and how those of one request have fared. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from mlx_server.engine.generation.drafting.draft_length import DraftLength
from mlx_server.engine.generation.drafting.prompt_lookup import PromptLookup


@dataclass
class Drafter:
    """The sources of guesses for one request, and how many tokens each may guess.

    `lookup` guesses from the request's text. `length` is the number of tokens for guesses from text and
    grammar, `model_length` that for guesses of the draft model.
    """

    lookup: PromptLookup = field(default_factory=PromptLookup)
    length: DraftLength = field(default_factory=DraftLength)
    model_length: DraftLength = field(default_factory=DraftLength)

    def record_plain(self) -> None:
        """Record a token that was generated without a draft."""
        self.length.record_plain()
        self.model_length.record_plain()

    def record(self, draft: Draft, accepted: int, to_check: float, to_guess: float) -> None:
        """Record how a draft fared. Checking one of its tokens costs `to_check`, and guessing one that the
        draft model guessed costs `to_guess`, both in tokens, as in `DraftLength.record`.
        """
        if guessed := draft.guessed_by_model:
            cost = to_guess + to_check * len(draft.tokens) / guessed
            self.model_length.record(guessed, accepted, cost)
            self.length.record_plain()
        elif draft.tokens:
            self.length.record(len(draft.tokens), accepted, to_check)
            self.model_length.record_plain()
        else:
            self.record_plain()


@dataclass(frozen=True)
class Draft:
    """Tokens that may follow the drawn one. The draft model has guessed `guessed_by_model` tokens, of which a
    grammar may allow fewer; 0 if the tokens are from the text or the grammar.
    """

    tokens: Sequence[int] = ()
    guessed_by_model: int = 0


@dataclass(frozen=True)
class Plan:
    """A step to compute: for each request the token that is drawn already, and its draft. The draft model has
    taken `guess_s` seconds for its guesses.
    """

    drawn: Sequence[int]
    drafts: Sequence[Draft]
    guess_s: float = 0.0
