"""Cache embeddings. A vector belongs to a text and a model, not to a chunk.

So a paragraph that moves, or that occurs in two files, is embedded once, and so is a repeated question. The
number and the age of vectors that no chunk uses are limited.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable

from orchestrator.storage.database import Database

MAX_UNUSED = 10_000  # about 17 MB with 384 dimensions
PARAMETERS_PER_STATEMENT = 500  # SQLite allows 32,766, older builds 999


def text_sha(text: str) -> str:
    """Return the SHA-256 (hex) of the text."""
    return hashlib.sha256(text.encode()).hexdigest()


class VectorCache:
    """The cache of embedding vectors in the database, by text and model. Its methods block."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def without_vector(self, texts: Iterable[str], model: str) -> list[str]:
        """Return those of the texts that have no stored vector of this model, each once, in order."""
        by_sha = {text_sha(text): text for text in texts}
        names = list(by_sha)
        with self._database.connect() as db:
            for start in range(0, len(names), PARAMETERS_PER_STATEMENT):
                some = names[start : start + PARAMETERS_PER_STATEMENT]
                marks = ", ".join("?" * len(some))
                kept = f"SELECT text_sha FROM vectors WHERE model = ? AND text_sha IN ({marks})"
                for row in db.execute(kept, (model, *some)):
                    del by_sha[row["text_sha"]]
        return list(by_sha.values())

    def vector(self, text: str, model: str) -> list[float] | None:
        """Return the stored vector of the text for this model; None if there is none."""
        with self._database.connect() as db:
            row = db.execute(
                "SELECT vector FROM vectors WHERE text_sha = ? AND model = ?", (text_sha(text), model)
            ).fetchone()
        return self._database.unpacked(row["vector"]) if row else None

    def keep(self, model: str, texts: list[str], vectors: list[list[float]]) -> None:
        """Store one vector of this model per text."""
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

    def drop_unused(self, older_than_s: float, max_unused: int = MAX_UNUSED) -> int:
        """Delete vectors that no chunk uses: first those unused for `older_than_s` seconds, then all but the
        newest `max_unused` of the remaining unused ones. Return how many were deleted.

        A chunk uses the vector of its text by the model that embedded its file, not the vectors by earlier
        models. The time counts from when the vector was computed, or from when the last file with the text
        was deleted, changed, or embedded by another model.
        """
        unused = (
            "FROM vectors WHERE NOT EXISTS (SELECT 1 FROM chunks JOIN files ON files.id = file_id"
            " WHERE chunks.text_sha = vectors.text_sha AND files.model = vectors.model)"
        )
        with self._database.connect() as db:
            old = db.execute(f"DELETE {unused} AND made_at < ?", (time.time() - older_than_s,)).rowcount
            bound = db.execute(
                f"SELECT made_at {unused} ORDER BY made_at DESC LIMIT 1 OFFSET ?", (max_unused,)
            )
            row = bound.fetchone()
            more = db.execute(f"DELETE {unused} AND made_at <= ?", (row["made_at"],)).rowcount if row else 0
        return int(old + more)
