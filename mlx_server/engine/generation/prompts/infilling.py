"""Make the prompt for filling a gap, from the texts before and after the gap, each preceded by a special
token. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

_FAMILIES: Sequence[tuple[str, str, str | None]] = (
    ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"),  # Qwen-coder, CodeGemma, Granite
    ("<fim_prefix>", "<fim_suffix>", "<fim_middle>"),  # StarCoder, SantaCoder
    ("<fim-prefix>", "<fim-suffix>", "<fim-middle>"),
    ("▁<PRE>", "▁<SUF>", "▁<MID>"),  # CodeLlama
    ("<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>"),  # DeepSeek
    ("<[fim-prefix]>", "<[fim-suffix]>", "<[fim-middle]>"),  # Seed-Coder
    ("[PREFIX]", "[SUFFIX]", None),  # Codestral: the suffix comes first, and there is no token at the end
)
"""For each family of models, three tokens: before the text that precedes the gap, before the text that
follows the gap, and at the end of the prompt."""

_ENDS = (
    "▁<EOT>",
    "<|endoftext|>",
    "<|fim_pad|>",
    "<|file_sep|>",
    "<|repo_name|>",
    "<|file_separator|>",
    "<file_sep>",
    "<｜end▁of▁sentence｜>",
)
"""Tokens with which such models end the text that fills the gap, or go on to another file."""


@dataclass(frozen=True)
class InfillTokens:
    """The ids of a model's special tokens for infilling, which is to write the text for a gap between two
    texts.

    `prefix` precedes the text before the gap, and `suffix` the text after it. `middle` ends the prompt; it is
    None for models whose prompt ends with the text before the gap. The tokens `ends` end the answer.
    """

    prefix: int
    suffix: int
    middle: int | None
    ends: frozenset[int]

    def prompt(self, start: Sequence[int], before: Sequence[int], after: Sequence[int]) -> list[int]:
        """Return the prompt for the gap between the tokens `before` and `after`. `start` holds the token that
        begins every text of the model, or is empty if the model has no such token.
        """
        if self.middle is None:
            return [*start, self.suffix, *after, self.prefix, *before]
        return [*start, self.prefix, *before, self.suffix, *after, self.middle]


def infill_tokens(tokenizer: Any) -> InfillTokens | None:
    """Return the tokenizer's special tokens for infilling; None if it has none, so that the model cannot
    infill.
    """

    def id_of(token: str) -> int | None:
        found = tokenizer.convert_tokens_to_ids(token)
        is_known = isinstance(found, int) and tokenizer.convert_ids_to_tokens(found) == token
        return found if is_known else None

    for prefix, suffix, middle in _FAMILIES:
        ids = [id_of(token) for token in (prefix, suffix, middle) if token is not None]
        if all(found is not None for found in ids):
            first, second, *rest = ids
            ends = frozenset(found for token in _ENDS if (found := id_of(token)) is not None)
            assert first is not None and second is not None
            return InfillTokens(first, second, rest[0] if rest else None, ends)
    return None
