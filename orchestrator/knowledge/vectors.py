"""The cache of embeddings: a vector belongs to a text and a model, not to a chunk.

A paragraph that moves, or stands in two files or with two agents, is embedded once; so is a question that is
asked twice. What no chunk uses is bounded in number and in age.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable

from orchestrator.storage.database import Database

MOST_UNUSED = 10_000  # some 17 MB of 384 dimensions
NAMES_AT_ONCE = 500  # SQLite takes 32,766 parameters in a statement, older builds 999


def text_sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


class VectorCache:
    def __init__(self, database: Database) -> None:
        self._database = database

    def without_vector(self, texts: Iterable[str], model: str) -> list[str]:
        """Those of the texts that no vector of this model is kept for, each once, in their order."""
        by_sha = {text_sha(text): text for text in texts}
        names = list(by_sha)
        with self._database.connect() as db:
            for start in range(0, len(names), NAMES_AT_ONCE):
                some = names[start : start + NAMES_AT_ONCE]
                marks = ", ".join("?" * len(some))
                kept = f"SELECT text_sha FROM vectors WHERE model = ? AND text_sha IN ({marks})"
                for row in db.execute(kept, (model, *some)):
                    del by_sha[row["text_sha"]]
        return list(by_sha.values())

    def vector(self, text: str, model: str) -> list[float] | None:
        with self._database.connect() as db:
            row = db.execute(
                "SELECT vector FROM vectors WHERE text_sha = ? AND model = ?", (text_sha(text), model)
            ).fetchone()
        return self._database.unpacked(row["vector"]) if row else None

    def keep(self, model: str, texts: list[str], vectors: list[list[float]]) -> None:
        now = time.time()
        rows = [
            (text_sha(text), model, len(vector), self._database.packed(vector), now)
            for text, vector in zip(texts, vectors, strict=True)
        ]
        with self._database.connect() as db:
            db.executemany(
                "INSERT INTO vectors (text_sha, model, dim, vector, made_at) VALUES (?, ?, ?, ?, ?)"
                " ON CONFLICT (text_sha, model) DO UPDATE SET dim = excluded.dim, vector = excluded.vector,"
                " made_at = excluded.made_at",
                rows,
            )

    def drop_unused(self, older_than_s: float, most: int = MOST_UNUSED) -> int:
        """Forget those that no chunk uses and that are older than that, or too many; returns how many."""
        unused = "FROM vectors WHERE text_sha NOT IN (SELECT text_sha FROM chunks)"
        with self._database.connect() as db:
            old = db.execute(f"DELETE {unused} AND made_at < ?", (time.time() - older_than_s,)).rowcount
            bound = db.execute(f"SELECT made_at {unused} ORDER BY made_at DESC LIMIT 1 OFFSET ?", (most,))
            row = bound.fetchone()
            more = db.execute(f"DELETE {unused} AND made_at <= ?", (row["made_at"],)).rowcount if row else 0
        return int(old + more)
