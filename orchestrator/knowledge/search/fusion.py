"""Several rankings made into one, by weighted reciprocal rank fusion. Pure.

Cormack, Clarke and Büttcher, "Reciprocal rank fusion outperforms Condorcet and individual rank learning
methods" (SIGIR 2009): it looks at ranks alone, so a cosine and a BM25 need no common scale.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

# The paper has 60, for rankings of a thousand; with a few dozen the first places must count for more.
DAMPING = 10


@dataclass(frozen=True)
class Ranking:
    """Ids, best first, and what a place here counts for beside the others."""

    ids: Sequence[int]
    weight: float = 1.0


def fused(rankings: Sequence[Ranking], most: int) -> list[tuple[int, float]]:
    """The best `most` ids with their scores, best first; 1.0 is the first place in every ranking."""
    scores: dict[int, float] = {}
    for ranking in rankings:
        for rank, found in enumerate(ranking.ids, 1):
            scores[found] = scores.get(found, 0.0) + ranking.weight / (DAMPING + rank)
    highest = sum(ranking.weight for ranking in rankings) / (DAMPING + 1)
    best = sorted(scores.items(), key=lambda item: (-item[1], item[0]))[:most]
    return [(found, score / highest) for found, score in best]
