"""Ranks in Postgres: by meaning with pgvector, exactly; by words with its full-text search.

No approximate index: its neighbours are found before the scope is looked at, and the rows are few enough.
"""

from __future__ import annotations

from typing import Any

from ..storage.database import Database
from .scope import Scope
from .store import CHUNKS


class PostgresRanker:
    def __init__(self, database: Database, model: str) -> None:
        self._database = database
        self._model = model

    def by_meaning(self, vector: list[float], scope: Scope, most: int) -> list[tuple[int, float]]:
        within, values = _within(scope)
        given = self._database.packed(vector)
        with self._database.connect() as db:
            rows = db.execute(
                f"SELECT chunks.id AS id, 1 - (vector <=> ?::vector) AS similarity FROM {CHUNKS}"
                " JOIN vectors ON vectors.text_sha = chunks.text_sha AND vectors.model = ?"
                f" WHERE dim = ?{within} ORDER BY vector <=> ?::vector, chunks.id LIMIT ?",
                (given, self._model, len(vector), *values, given, most),
            )
            return [(row["id"], float(row["similarity"])) for row in rows]

    def by_words(self, match: str, scope: Scope, most: int) -> list[int]:
        if not match:
            return []
        within, values = _within(scope)
        with self._database.connect() as db:
            rows = db.execute(
                # FTS5's `"a b" OR "c"` is what websearch_to_tsquery reads too.
                f"SELECT chunks.id AS id FROM {CHUNKS}, websearch_to_tsquery('english', ?) AS query"
                f" WHERE words @@ query{within} ORDER BY ts_rank(words, query, 1) DESC, chunks.id LIMIT ?",
                (match, *values, most),
            )
            return [row["id"] for row in rows]


def _within(scope: Scope) -> tuple[str, list[Any]]:
    """The conditions that keep a search in its scope, and their values."""
    condition, values = "", list[Any]()
    if scope.agents is not None:
        condition += " AND agent = ANY(?)"
        values.append(list(scope.agents))
    if scope.path:
        condition += " AND starts_with(path, ?)"
        values.append(scope.path)
    return condition, values
