"""Ranks in Postgres: by meaning with pgvector, exactly; by words with its full-text search.

No approximate index: its neighbors are found before the scope is looked at, and the rows are few enough.
"""

from __future__ import annotations

from typing import Any

from orchestrator.knowledge.search.scope import Scope
from orchestrator.storage.database import Database


class PostgresRanker:
    def __init__(self, database: Database, model: str) -> None:
        self._database = database
        self._model = model

    def by_meaning(self, vector: list[float], scope: Scope, most: int) -> list[tuple[int, float]]:
        within, values = _within(scope)
        given = self._database.packed(vector)
        with self._database.connect() as db:
            rows = db.execute(
                # OFFSET 0: the distances first, so that the join does not carry the vectors along.
                "SELECT chunks.id AS id, 1 - distance AS similarity FROM"
                " (SELECT text_sha, vector <=> ?::vector AS distance FROM vectors"
                " WHERE model = ? AND dim = ? OFFSET 0) AS near JOIN chunks USING (text_sha)"
                f" WHERE {within} ORDER BY distance, chunks.id LIMIT ?",
                (given, self._model, len(vector), *values, most),
            )
            return [(row["id"], float(row["similarity"])) for row in rows]

    def rest(self) -> None:
        """Nothing is held."""

    def by_words(self, match: str, scope: Scope, most: int) -> list[int]:
        """Postgres' own ranks know nothing of rarity: each word's is weighed by how few chunks have it."""
        if not match:
            return []
        within, values = _within(scope)
        with self._database.connect() as db:
            rows = db.execute(
                # FTS5's `"a b"` is what websearch_to_tsquery reads too.
                "WITH found AS MATERIALIZED ("
                " SELECT n, chunks.id, file_id, ts_rank(words, query, 1) AS rank FROM"
                " (SELECT n, websearch_to_tsquery('english', word) AS query"
                " FROM unnest(?::text[]) WITH ORDINALITY AS asked (word, n)) AS each"
                " JOIN chunks ON words @@ query),"
                " rarity AS (SELECT n, ln(1 + (SELECT count(*) FROM chunks) / count(*)::float) AS weight"
                " FROM found GROUP BY n)"
                f" SELECT id FROM found JOIN rarity USING (n) WHERE {within}"
                " GROUP BY id ORDER BY sum(weight * rank) DESC, id LIMIT ?",
                (match.split(" OR "), *values, most),
            )
            return [row["id"] for row in rows]


def _within(scope: Scope) -> tuple[str, list[Any]]:
    """The condition on a chunk's `file_id` that keeps a search in its scope, and its values."""
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
