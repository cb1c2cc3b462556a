"""Rank chunks in Postgres: by meaning with pgvector, by words with Postgres's full-text search.

The nearest vectors are found by an exact scan, which is fast enough for about 20,000 rows. An approximate
index would choose the neighbors before the search is limited to some agents and paths.
"""

from __future__ import annotations

from typing import Any

from orchestrator.knowledge.search.scope import Scope
from orchestrator.knowledge.store import KnowledgeStore, main_size
from orchestrator.storage.database import Database


class PostgresRanker:
    """Implements `Ranker` on Postgres with pgvector. `model` is the embedding model whose vectors
    `by_meaning` compares. `store` has the chunks.
    """

    def __init__(self, database: Database, store: KnowledgeStore, model: str) -> None:
        self._database = database
        self._store = store
        self._model = model
        self._counted = (-1, 0)  # the generation of the chunks whose vectors were counted; their size

    def by_meaning(self, vector: list[float], scope: Scope, limit: int) -> list[tuple[int, float]]:
        within, values = _within(scope)
        given = self._database.packed(vector)
        with self._database.connect() as db:
            rows = db.execute(
                # OFFSET 0 computes the distances first, so that the join does not carry the vectors.
                "SELECT chunks.id AS id, 1 - distance AS similarity FROM"
                " (SELECT text_sha, vector <=> ?::vector AS distance FROM vectors"
                " WHERE model = ? AND dim = ? OFFSET 0) AS near JOIN chunks USING (text_sha)"
                f" WHERE {within} ORDER BY distance, chunks.id LIMIT ?",
                (given, self._model, len(vector), *values, limit),
            )
            return [(row["id"], float(row["similarity"])) for row in rows]

    def vector_size(self) -> int:
        """Return the number of dimensions of most of the chunks' vectors; 0 if no chunk has a vector. The
        vectors are counted once for each change of the chunks.
        """
        generation, counted = self._store.generation(), self._counted  # another thread may count meanwhile
        if counted[0] != generation:
            counted = self._counted = (generation, main_size(self._store.vector_sizes(self._model)))
        return counted[1]

    def release_idle_memory(self) -> None:
        """Do nothing, because this ranker holds no memory."""

    def by_words(self, match: str, scope: Scope, limit: int) -> list[int]:
        """Return the ids of the chunks that contain any of the words in `match` (joined by " OR "), the best
        first; none for "".

        Each word is weighted by its inverse document frequency, which Postgres's own rank ignores.
        """
        if not match:
            return []
        within, values = _within(scope)
        with self._database.connect() as db:
            rows = db.execute(
                # websearch_to_tsquery understands FTS5's `"a b"`.
                "WITH found AS MATERIALIZED ("
                " SELECT n, chunks.id, file_id, ts_rank(words, query, 1) AS rank FROM"
                " (SELECT n, websearch_to_tsquery('english', word) AS query"
                " FROM unnest(?::text[]) WITH ORDINALITY AS asked (word, n)) AS each"
                " JOIN chunks ON words @@ query),"
                " rarity AS (SELECT n, ln(1 + (SELECT count(*) FROM chunks) / count(*)::float) AS weight"
                " FROM found GROUP BY n)"
                f" SELECT id FROM found JOIN rarity USING (n) WHERE {within}"
                " GROUP BY id ORDER BY sum(weight * rank) DESC, id LIMIT ?",
                (match.split(" OR "), *values, limit),
            )
            return [row["id"] for row in rows]


def _within(scope: Scope) -> tuple[str, list[Any]]:
    """Return the SQL condition on `file_id` that limits a search to `scope`, and the condition's values."""
    conditions, values = list[str](), list[Any]()
    if scope.agents is not None:
        conditions.append("agent = ANY(?)")
        values.append(list(scope.agents))
    if scope.path:
        conditions.append("starts_with(path, ?)")
        values.append(scope.path)
    if not conditions:
        return "true", []
    return f"file_id IN (SELECT id FROM files WHERE {' AND '.join(conditions)})", values
