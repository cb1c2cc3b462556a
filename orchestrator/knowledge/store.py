"""Files, chunks and vectors in orchestrator.db.

A vector belongs to a text and a model, not to a chunk: a paragraph that moves, or stands in two files, is
embedded once. That makes the table the cache of embeddings as well.
"""

from __future__ import annotations

import hashlib
import sqlite3
import time
from array import array
from collections.abc import Iterable
from dataclasses import dataclass

from ..database import Database
from .chunks import Chunk


@dataclass(frozen=True)
class Known:
    """A file as it was when it was last embedded."""

    sha256: str
    size: int
    mtime_ns: int
    model: str


def text_sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


class KnowledgeStore:
    def __init__(self, database: Database) -> None:
        self._database = database

    def known(self, agent: str) -> dict[str, Known]:
        with self._database.connect() as db:
            rows = db.execute(
                "SELECT path, sha256, size, mtime_ns, model FROM files WHERE agent = ?", (agent,)
            )
            return {r["path"]: Known(r["sha256"], r["size"], r["mtime_ns"], r["model"]) for r in rows}

    def agents(self) -> set[str]:
        with self._database.connect() as db:
            return {row[0] for row in db.execute("SELECT DISTINCT agent FROM files")}

    def counts(self) -> dict[str, int]:
        with self._database.connect() as db:
            files = db.execute("SELECT count(*) FROM files").fetchone()[0]
            return {"files": files, "chunks": db.execute("SELECT count(*) FROM chunks").fetchone()[0]}

    def without_vector(self, texts: Iterable[str], model: str) -> list[str]:
        """Those of the texts that no vector of this model is kept for, each once."""
        by_sha = {text_sha(text): text for text in texts}
        with self._database.connect() as db:
            for sha in list(by_sha):
                if db.execute(
                    "SELECT 1 FROM vectors WHERE text_sha = ? AND model = ?", (sha, model)
                ).fetchone():
                    del by_sha[sha]
        return list(by_sha.values())

    def vector(self, text: str, model: str) -> list[float] | None:
        with self._database.connect() as db:
            row = db.execute(
                "SELECT vector FROM vectors WHERE text_sha = ? AND model = ?", (text_sha(text), model)
            ).fetchone()
        return array("f", row["vector"]).tolist() if row else None

    def keep_vectors(self, model: str, texts: list[str], vectors: list[list[float]]) -> None:
        now = time.time()
        rows = [
            (text_sha(text), model, len(vector), array("f", vector).tobytes(), now)
            for text, vector in zip(texts, vectors, strict=True)
        ]
        with self._database.connect() as db:
            db.executemany("INSERT OR REPLACE INTO vectors VALUES (?, ?, ?, ?, ?)", rows)

    def replace_file(self, agent: str, path: str, known: Known, chunks: list[Chunk]) -> None:
        """Put the file's chunks in the place of its old ones, in one transaction."""
        with self._database.connect() as db:
            db.execute("DELETE FROM files WHERE agent = ? AND path = ?", (agent, path))
            file_id = db.execute(
                "INSERT INTO files (agent, path, sha256, size, mtime_ns, model) VALUES (?, ?, ?, ?, ?, ?)",
                (agent, path, known.sha256, known.size, known.mtime_ns, known.model),
            ).lastrowid
            db.executemany(
                "INSERT INTO chunks (file_id, ordinal, heading, text, text_sha) VALUES (?, ?, ?, ?, ?)",
                [(file_id, n, c.heading, c.text, text_sha(c.embedded_text)) for n, c in enumerate(chunks)],
            )
            _bump(db)

    def touch_file(self, agent: str, path: str, known: Known) -> None:
        """The content is the same, its time is not: remember that, so that it need not be read again."""
        with self._database.connect() as db:
            db.execute(
                "UPDATE files SET size = ?, mtime_ns = ? WHERE agent = ? AND path = ?",
                (known.size, known.mtime_ns, agent, path),
            )

    def forget_files(self, agent: str, paths: Iterable[str]) -> None:
        with self._database.connect() as db:
            db.executemany(
                "DELETE FROM files WHERE agent = ? AND path = ?", [(agent, path) for path in paths]
            )
            _bump(db)

    def generation(self) -> int:
        """Grows with every change of the chunks; a search index built at another one is stale."""
        return int(self._database.meta("knowledge_generation") or 0)

    def searchable(self, model: str) -> list[tuple[int, str, bytes]]:
        """(chunk id, agent, vector) of every chunk that has a vector of this model."""
        with self._database.connect() as db:
            rows = db.execute(
                "SELECT chunks.id, files.agent, vectors.vector FROM chunks JOIN files ON files.id = file_id"
                " JOIN vectors ON vectors.text_sha = chunks.text_sha AND vectors.model = ?"
                " ORDER BY chunks.id",
                (model,),
            )
            return [(row[0], row[1], row[2]) for row in rows]

    def chunk(self, chunk_id: int) -> dict[str, str] | None:
        with self._database.connect() as db:
            row = db.execute(
                "SELECT agent, path AS file, heading, text FROM chunks JOIN files ON files.id = file_id"
                " WHERE chunks.id = ?",
                (chunk_id,),
            ).fetchone()
        return dict(row) if row else None

    def unsound_files(self, agent: str, model: str) -> list[str]:
        """The agent's files with a chunk that has no vector of this model."""
        with self._database.connect() as db:
            rows = db.execute(
                "SELECT DISTINCT path FROM files JOIN chunks ON files.id = file_id LEFT JOIN vectors"
                " ON vectors.text_sha = chunks.text_sha AND vectors.model = ?"
                " WHERE agent = ? AND vectors.text_sha IS NULL",
                (model, agent),
            )
            return [row[0] for row in rows]

    def drop_unused_vectors(self, older_than_s: float) -> int:
        """Forget vectors that no chunk uses and that were made longer ago than that; returns how many."""
        with self._database.connect() as db:
            return db.execute(
                "DELETE FROM vectors WHERE made_at < ? AND text_sha NOT IN (SELECT text_sha FROM chunks)",
                (time.time() - older_than_s,),
            ).rowcount


def _bump(db: sqlite3.Connection) -> None:
    db.execute(
        "INSERT INTO meta VALUES ('knowledge_generation', '1')"
        " ON CONFLICT (key) DO UPDATE SET value = CAST(value AS INTEGER) + 1"
    )
