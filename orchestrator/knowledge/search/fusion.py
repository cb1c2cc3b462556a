"""Join several rankings by weighted reciprocal rank fusion. Pure.

Cormack, Clarke and Büttcher, "Reciprocal rank fusion outperforms Condorcet and individual rank learning
methods" (SIGIR 2009). The method uses ranks only, so that cosine and BM25 need no common scale.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

# The paper uses 60 for rankings of a thousand; with a few dozen, the first ranks must weigh more.
DAMPING = 10


@dataclass(frozen=True)
class Ranking:
    """One of the rankings to be joined: the ids of the ranked chunks, the best first, and the ranking's
    weight.
    """

    ids: Sequence[int]
    weight: float = 1.0


def fused(rankings: Sequence[Ranking], limit: int) -> list[tuple[int, float]]:
    """Return the best `limit` ids with their scores, the best first. An id that is first in every ranking
    scores 1.0.
    """
    scores: dict[int, float] = {}
    for ranking in rankings:
        for rank, found in enumerate(ranking.ids, 1):
            scores[found] = scores.get(found, 0.0) + ranking.weight / (DAMPING + rank)
    highest = sum(ranking.weight for ranking in rankings) / (DAMPING + 1)
    best = sorted(scores.items(), key=lambda item: (-item[1], item[0]))[:limit]
    return [(found, score / highest) for found, score in best]
