"""Ranks in SQLite: by meaning with one numpy matrix, by words with FTS5's BM25."""

from __future__ import annotations

from orchestrator.knowledge.search.scope import Scope
from orchestrator.knowledge.search.vector_index import CurrentIndex
from orchestrator.storage.database import Database


class SqliteRanker:
    def __init__(self, database: Database, index: CurrentIndex) -> None:
        self._database = database
        self._index = index

    def by_meaning(self, vector: list[float], scope: Scope, most: int) -> list[tuple[int, float]]:
        return self._index.get(len(vector)).nearest(vector, scope, most)

    def rest(self) -> None:
        self._index.rest()

    def by_words(self, match: str, scope: Scope, most: int) -> list[int]:
        if not match:
            return []
        within, values = _within(scope)
        with self._database.connect() as db:
            rows = db.execute(
                f"SELECT rowid AS id FROM words WHERE words MATCH ?{within} ORDER BY rank LIMIT ?",
                (match, *values, most),
            )
            return [row["id"] for row in rows]


def _within(scope: Scope) -> tuple[str, list[str]]:
    """The condition on `words` that keeps a search in its scope, and its values."""
    conditions: list[str] = []
    values: list[str] = []
    if scope.agents is not None:
        conditions.append(f"agent IN ({', '.join('?' * len(scope.agents))})")
        values += scope.agents
    if scope.path:
        conditions.append("substr(path, 1, length(?)) = ?")  # LIKE would take % and _ for more
        values += [scope.path, scope.path]
    if not conditions:
        return "", []
    # CROSS JOIN: files first, by SQLite's rule; its planner would read every chunk. The plus keeps it from
    # asking the full-text index once a chunk.
    ids = "SELECT chunks.id FROM files CROSS JOIN chunks ON file_id = files.id"
    return f" AND +rowid IN ({ids} WHERE {' AND '.join(conditions)})", values
