"""The drafts of a step, and the drafting state of one request. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from mlx_server.engine.generation.drafting.draft_length import DraftLength
from mlx_server.engine.generation.drafting.prompt_lookup import PromptLookup


@dataclass
class Drafter:
    """The sources of drafts for one request, and how many tokens each source may draft.

    `lookup` drafts from the request's own text. `length` decides how many tokens are drafted from text and
    grammar, `model_length` how many by the draft model.
    """

    lookup: PromptLookup = field(default_factory=PromptLookup)
    length: DraftLength = field(default_factory=DraftLength)
    model_length: DraftLength = field(default_factory=DraftLength)

    def record_plain(self) -> None:
        """Record a token that was generated without a draft."""
        self.length.record_plain()
        self.model_length.record_plain()

    def record(self, draft: Draft, accepted: int, to_check: float, to_guess: float) -> None:
        """Record that the first `accepted` tokens of `draft` were accepted. The length of the next drafts
        depends on it.

        `to_check` is the cost of verifying one token of the draft, and `to_guess` the cost of drafting one
        token with the draft model. A cost is the number of tokens that all requests together would get in the
        same time without drafts.
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
    """Tokens that may follow the token drawn last.

    `guessed_by_model` is how many tokens the draft model has drafted, of which `tokens` has only those that
    the grammar allows; 0 if the tokens come from the request's text or grammar.
    """

    tokens: Sequence[int] = ()
    guessed_by_model: int = 0


@dataclass(frozen=True)
class Plan:
    """A step to compute: for each request, the token drawn last, and the draft that follows it.

    `guess_s` is how many seconds the draft model took to draft.
    """

    drawn: Sequence[int]
    drafts: Sequence[Draft]
    guess_s: float = 0.0

    @property
    def width(self) -> int:
        """Return how many tokens the step computes for each request: as many as the longest draft needs."""
        return 1 + max(len(draft.tokens) for draft in self.drafts)

    @property
    def computed(self) -> int:
        """Return how many tokens the step computes to verify the drafts, for all requests together."""
        return len(self.drafts) * (self.width - 1)
