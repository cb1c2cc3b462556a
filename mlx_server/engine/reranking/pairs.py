"""Convert a query and a document to the tokens that a reranker reads. Pure.

If a pair is too long, the end of the document is cut off. The query is never cut, because the score for half
a question would be the score for another question.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

INSTRUCTION = "Given a web search query, retrieve relevant passages that answer the query"
"""The instruction for requests that have none. Qwen3-Reranker was trained with it."""

_JUDGE = (
    "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the "
    'Instruct provided. Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n'
)
_ANSWER = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"


@dataclass(frozen=True)
class Pair:
    """The token ids of a query and a document, and their token types (0 or 1, for models that distinguish
    both texts).

    The tokens of the document are `ids[start:end]`.
    """

    ids: list[int]
    types: list[int]
    start: int
    end: int

    def cut(self, limit: int, max_document_tokens: int | None = None) -> Pair:
        """Return the pair with at most `limit` tokens, of which the document has at most
        `max_document_tokens` (None: no limit). The end of the document is cut off. If the pair is too long
        even without a document, it remains too long.
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
    """Converts queries and documents to tokens, in the form on which one family of rerankers was trained."""

    def pairs(self, query: str, documents: Sequence[str], instruction: str | None) -> list[Pair]:
        """Return a pair of the query and each document, without cutting any document. `instruction` is None
        for the default.
        """
        ...


@dataclass(frozen=True)
class TwoTexts:
    """The form for cross-encoders: both texts, with the special tokens that the tokenizer puts around them.

    These models have no place for an instruction, so the instruction is put before the query. Without
    `has_types`, all tokens get type 0, because the model was trained in that way.
    """

    tokenizer: Any
    has_types: bool = True

    def pairs(self, query: str, documents: Sequence[str], instruction: str | None) -> list[Pair]:
        asked = f"{instruction}\n{query}" if instruction else query
        found = self.tokenizer.encode_batch([(asked, text) for text in documents])
        return [_pair(encoding, self.has_types) for encoding in found]


def _pair(encoding: Any, has_types: bool) -> Pair:
    """Convert `encoding`, which the library `tokenizers` has made from a query and a document, to a Pair. If
    `has_types` is False, all tokens get type 0, because the model has no token types.
    """
    ids, origins = encoding.ids, encoding.sequence_ids
    types = encoding.type_ids if has_types else [0] * len(ids)
    end = len(ids) - next((n for n, origin in enumerate(reversed(origins)) if origin == 1), len(ids))
    start = next((n for n, origin in enumerate(origins) if origin == 1), None)
    if start is None:  # the place of an empty document is before the closing special token
        start = end = len(ids) - 1
    return Pair(ids, types, start, end)


@dataclass(frozen=True)
class JudgePrompt:
    """The prompt of Qwen3-Reranker, which the model answers with yes or no.

    `encode` returns the token ids of each text, and converts the name of a special token in a text to that
    token.
    """

    encode: Callable[[Sequence[str]], list[list[int]]]
    instruction: str = INSTRUCTION

    def pairs(self, query: str, documents: Sequence[str], instruction: str | None) -> list[Pair]:
        asked = f"<Instruct>: {instruction or self.instruction}\n<Query>: {query}\n<Document>:"
        before, head, after = self.encode([_JUDGE, asked, _ANSWER])
        # A document is tokenized together with the text before it, as in the model's training, because a
        # token may contain the end of that text and the beginning of the document.
        return [
            _judged(before, len(head), text, after)
            for text in self.encode([f"{asked} {document}" for document in documents])
        ]


def _judged(before: list[int], head_tokens: int, text: list[int], after: list[int]) -> Pair:
    """Return the pair with the token ids `before`, `text` and `after`, in this order. `text` consists of the
    instruction, the query and the document; `before` and `after` are the parts of the prompt around them.
    `head_tokens` is how many tokens the instruction and the query have: the document begins after these
    tokens of `text`.
    """
    ids, end = before + text + after, len(before) + len(text)
    return Pair(ids, [0] * len(ids), min(len(before) + head_tokens, end), end)
