"""A query and a document as the tokens that a reranker reads. Pure.

The tokens of the document are cut off at its end if the pair is too long. Those of the query never are: a
score for half a question would be a score for another question.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

INSTRUCTION = "Given a web search query, retrieve relevant passages that answer the query"
"""The instruction that Qwen3-Reranker was trained with, for requests without one."""

_JUDGE = (
    "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the "
    'Instruct provided. Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n'
)
_ANSWER = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"


@dataclass(frozen=True)
class Pair:
    """The token ids of a pair and their token types (0 or 1, for models that distinguish both texts).

    The tokens of the document are `ids[start:end]`.
    """

    ids: list[int]
    types: list[int]
    start: int
    end: int

    def cut(self, limit: int, max_document_tokens: int | None = None) -> Pair:
        """Return the pair with at most `limit` tokens, of which the document has at most
        `max_document_tokens`. The document loses its end; if that is not enough, the pair stays too long.
        """
        document_tokens = self.end - self.start
        most = document_tokens if max_document_tokens is None else max_document_tokens
        most = min(most, document_tokens - (len(self.ids) - limit))
        if most >= document_tokens:
            return self
        kept = self.start + max(0, most)
        ids, types = self.ids[:kept] + self.ids[self.end :], self.types[:kept] + self.types[self.end :]
        return replace(self, ids=ids, types=types, end=kept)


class PairTokenizer(Protocol):
    """Makes the tokens of pairs, in the form that one family of rerankers was trained on."""

    def pairs(self, query: str, documents: Sequence[str], instruction: str | None) -> list[Pair]:
        """Return the pair of the query with each document, at full length."""
        ...


@dataclass(frozen=True)
class TwoTexts:
    """The form of cross-encoders: both texts, with the special tokens that the tokenizer puts around them.

    These models have no place for an instruction, so that it stands before the query. Without `has_types`,
    the model was trained with type 0 for all tokens.
    """

    tokenizer: Any
    has_types: bool = True

    def pairs(self, query: str, documents: Sequence[str], instruction: str | None) -> list[Pair]:
        asked = f"{instruction}\n{query}" if instruction else query
        found = self.tokenizer.encode_batch([(asked, text) for text in documents])
        return [_pair(encoding, self.has_types) for encoding in found]


def _pair(encoding: Any, has_types: bool) -> Pair:
    """Return the pair in an encoding of the library `tokenizers`."""
    ids, origins = encoding.ids, encoding.sequence_ids
    types = encoding.type_ids if has_types else [0] * len(ids)
    end = len(ids) - next((n for n, origin in enumerate(reversed(origins)) if origin == 1), len(ids))
    start = next((n for n, origin in enumerate(origins) if origin == 1), None)
    if start is None:  # an empty document stands before the closing special token
        start = end = len(ids) - 1
    return Pair(ids, types, start, end)


@dataclass(frozen=True)
class JudgePrompt:
    """The prompt of Qwen3-Reranker, to which it answers with yes or no.

    `encode` returns the tokens of a text, in which special tokens are read as such.
    """

    encode: Callable[[Sequence[str]], list[list[int]]]
    instruction: str = INSTRUCTION

    def pairs(self, query: str, documents: Sequence[str], instruction: str | None) -> list[Pair]:
        asked = f"<Instruct>: {instruction or self.instruction}\n<Query>: {query}\n<Document>:"
        before, head, after = self.encode([_JUDGE, asked, _ANSWER])
        # A document is tokenized together with the text before it, as in the model's training: a token may
        # reach from one to the other.
        return [
            _judged(before, len(head), text, after)
            for text in self.encode([f"{asked} {document}" for document in documents])
        ]


def _judged(before: list[int], head_tokens: int, text: list[int], after: list[int]) -> Pair:
    """Return the pair for a `text` that begins with `head_tokens` tokens of instruction and query."""
    ids, end = before + text + after, len(before) + len(text)
    return Pair(ids, [0] * len(ids), min(len(before) + head_tokens, end), end)
