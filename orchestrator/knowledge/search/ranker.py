"""Define the two rankings of chunks that a search joins, and choose their implementation for the database."""

from __future__ import annotations

from typing import Protocol

from orchestrator.knowledge.search.scope import Scope
from orchestrator.knowledge.store import KnowledgeStore
from orchestrator.storage.database import Database
from orchestrator.storage.sqlite import SqliteDatabase


class Ranker(Protocol):
    """Ranks chunks by meaning and by words. All methods block."""

    def by_meaning(self, vector: list[float], scope: Scope, limit: int) -> list[tuple[int, float]]:
        """Return (chunk id, cosine similarity) of the `limit` chunks in the scope nearest to `vector`, the
        nearest first; none if `vector` has another size than the chunks' vectors.
        """
        ...

    def vector_size(self) -> int:
        """Return the number of dimensions of the chunks' vectors; 0 if no chunk has a vector. If the vectors
        have different sizes, because another model got the embedding model's name, return the most frequent
        size.
        """
        ...

    def by_words(self, match: str, scope: Scope, limit: int) -> list[int]:
        """Return the ids of up to `limit` chunks that match `match`, an expression of `keywords.match_of`,
        the best first; none for "".
        """
        ...

    def release_idle_memory(self) -> None:
        """Release the memory of vectors that no search has used for ten minutes. The orchestrator calls this
        at the end of each cycle, its periodic round of checks and work.
        """
        ...


def ranker_of(database: Database, store: KnowledgeStore, model: str) -> Ranker:
    """Return the ranker for this kind of database; `model` is the embedding model whose vectors it
    compares.
    """
    if isinstance(database, SqliteDatabase):
        from orchestrator.knowledge.search.sqlite_ranker import SqliteRanker
        from orchestrator.knowledge.search.vector_index import CurrentIndex

        return SqliteRanker(database, CurrentIndex(database, store, model))
    from orchestrator.knowledge.search.postgres_ranker import PostgresRanker

    return PostgresRanker(database, store, model)
