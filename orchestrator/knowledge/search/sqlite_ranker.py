"""Rank chunks in SQLite: by meaning with one numpy matrix, by words with FTS5's BM25."""

from __future__ import annotations

from orchestrator.knowledge.search.scope import Scope
from orchestrator.knowledge.search.vector_index import CurrentIndex
from orchestrator.storage.database import Database


class SqliteRanker:
    """Implements `Ranker` on SQLite."""

    def __init__(self, database: Database, index: CurrentIndex) -> None:
        self._database = database
        self._index = index

    def by_meaning(self, vector: list[float], scope: Scope, limit: int) -> list[tuple[int, float]]:
        """Return (chunk id, cosine similarity) of the `limit` chunks in the scope nearest to `vector`, the
        nearest first; none if `vector` has another size than the chunks' vectors.
        """
        index = self._index.get()
        return index.nearest(vector, scope, limit) if index.dim == len(vector) else []

    def vector_size(self) -> int:
        """Return the number of dimensions of the chunks' vectors; 0 if no chunk has a vector."""
        return self._index.get().dim

    def release_idle_memory(self) -> None:
        """Release the matrix of all vectors if no search has used it for ten minutes. The next search by
        meaning builds it again.
        """
        self._index.release_if_idle()

    def by_words(self, match: str, scope: Scope, limit: int) -> list[int]:
        """Return the ids of at most `limit` chunks in the scope that match `match`, ranked by BM25, the best
        first; none if `match` is "". `match` is an FTS5 expression of `keywords.match_of`, which finds chunks
        with any word of the question.
        """
        if not match:
            return []
        within, values = _within(scope)
        with self._database.connect() as db:
            rows = db.execute(
                f"SELECT rowid AS id FROM words WHERE words MATCH ?{within} ORDER BY rank LIMIT ?",
                (match, *values, limit),
            )
            return [row["id"] for row in rows]


def _within(scope: Scope) -> tuple[str, list[str]]:
    """Return the SQL condition (" AND …") that limits a search in the full-text table `words` to `scope`, and
    the values for its placeholders; "" and no values if the scope excludes nothing.
    """
    conditions: list[str] = []
    values: list[str] = []
    if scope.agents is not None:
        conditions.append(f"agent IN ({', '.join('?' * len(scope.agents))})")
        values += scope.agents
    if scope.path:
        conditions.append("substr(path, 1, length(?)) = ?")  # LIKE would treat % and _ as wildcards
        values += [scope.path, scope.path]
    if not conditions:
        return "", []
    # CROSS JOIN makes SQLite read files first; its planner would read every chunk. The plus sign prevents a
    # lookup in the full-text index for each chunk.
    ids = "SELECT chunks.id FROM files CROSS JOIN chunks ON file_id = files.id"
    return f" AND +rowid IN ({ids} WHERE {' AND '.join(conditions)})", values
