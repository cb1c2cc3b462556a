"""Several rankings made into one, by reciprocal rank fusion. Pure.

Cormack, Clarke and Büttcher, "Reciprocal rank fusion outperforms Condorcet and individual rank learning
methods" (SIGIR 2009): it looks at ranks alone, so a cosine and a BM25 need no common scale.
"""

from __future__ import annotations

from collections.abc import Sequence

DAMPING = 60  # the paper's; with it a second place in both rankings beats a first place in one


def fused(rankings: Sequence[Sequence[int]], most: int) -> list[tuple[int, float]]:
    """The best `most` ids with their scores, best first; 1.0 is the first place in every ranking."""
    scores: dict[int, float] = {}
    for ranking in rankings:
        for rank, found in enumerate(ranking, 1):
            scores[found] = scores.get(found, 0.0) + 1 / (DAMPING + rank)
    highest = len(rankings) / (DAMPING + 1)
    best = sorted(scores.items(), key=lambda item: (-item[1], item[0]))[:most]
    return [(found, score / highest) for found, score in best]
