"""The two rankings that a search joins, from whichever database keeps the knowledge."""

from __future__ import annotations

from typing import Protocol

from orchestrator.knowledge.search.scope import Scope
from orchestrator.knowledge.store import KnowledgeStore
from orchestrator.storage.database import Database
from orchestrator.storage.sqlite import SqliteDatabase


class Ranker(Protocol):
    def by_meaning(self, vector: list[float], scope: Scope, most: int) -> list[tuple[int, float]]:
        """(chunk id, cosine similarity) of the nearest chunks in the scope, nearest first."""
        ...

    def by_words(self, match: str, scope: Scope, most: int) -> list[int]:
        """The ids of the chunks that have the words of `keywords.match_of`, best first; none for ""."""
        ...

    def rest(self) -> None:
        """Called now and then: let go of what was not used for a while."""
        ...


def ranker_of(database: Database, store: KnowledgeStore, model: str) -> Ranker:
    if isinstance(database, SqliteDatabase):
        from orchestrator.knowledge.search.sqlite_ranker import SqliteRanker
        from orchestrator.knowledge.search.vector_index import CurrentIndex

        return SqliteRanker(database, CurrentIndex(database, store, model))
    from orchestrator.knowledge.search.postgres_ranker import PostgresRanker

    return PostgresRanker(database, model)
