"""Write a ranking as an object with the fields of Jina's and Cohere's APIs, or as TEI's list. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

DOCUMENTS_PER_SEARCH_UNIT = 100
"""Cohere bills a query with up to 100 documents as one search unit, and its clients read the number of
units."""


@dataclass(frozen=True)
class Ranking:
    """The scores of all documents, in the order of the documents, and the number of tokens that were
    processed for them. `id` is the x-request-id of the HTTP request.
    """

    id: str
    scores: tuple[float, ...]
    prompt_tokens: int

    def best(self, count: int | None) -> list[tuple[int, float]]:
        """Return (index of the document, score) of the `count` best documents, best first; None means all.

        Among equal scores, the earlier document comes first.
        """
        return sorted(enumerate(self.scores), key=lambda scored: (-scored[1], scored[0]))[:count]


def ranked(
    model: str, ranking: Ranking, top_n: int | None, texts: Sequence[str], *, returns_documents: bool
) -> dict[str, Any]:
    """Return the `top_n` best documents (None: all) in the form of Jina's and Cohere's APIs; with
    `returns_documents`, include the text of each. `texts` are all documents.
    """
    results: list[dict[str, Any]] = []
    for index, score in ranking.best(top_n):
        document = {"document": {"text": texts[index]}} if returns_documents else {}
        results.append({"index": index, "relevance_score": score, **document})
    tokens = ranking.prompt_tokens
    units = math.ceil(len(texts) / DOCUMENTS_PER_SEARCH_UNIT)
    return {
        "id": ranking.id,
        "model": model,
        "object": "list",
        "results": results,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        "meta": {
            "api_version": {"version": "2"},
            "billed_units": {"search_units": units},
            "tokens": {"input_tokens": tokens},
        },
    }


def scores_of_texts(
    ranking: Ranking, top_n: int | None, texts: Sequence[str], *, returns_text: bool
) -> list[dict[str, Any]]:
    """Return the `top_n` best texts (None: all) in TEI's form; with `returns_text`, include each text."""
    return [
        {"index": index, "score": score, **({"text": texts[index]} if returns_text else {})}
        for index, score in ranking.best(top_n)
    ]
