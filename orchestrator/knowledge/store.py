"""Store the files of the agents' knowledge folders in the database: of each file, its size, date and hash,
the model that embedded it, and the texts of its chunks. `vectors.py` stores the chunks' vectors.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from orchestrator.knowledge.folders.chunks import Chunk
from orchestrator.knowledge.vectors import text_sha
from orchestrator.storage.database import Connection, Database

# Chunks joined with their file and agent, as every search reads them.
CHUNKS = "chunks JOIN files ON files.id = file_id"


@dataclass(frozen=True)
class Known:
    """The facts about a file when it was last embedded, and the model that embedded it."""

    sha256: str
    size: int
    mtime_ns: int
    model: str


class KnowledgeStore:
    """The files and chunks in the database. Its methods block."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def known(self, agent: str) -> dict[str, Known]:
        """Return the stored facts about each embedded file of the agent, by the file's path."""
        with self._database.connect() as db:
            rows = db.execute(
                "SELECT path, sha256, size, mtime_ns, model FROM files WHERE agent = ?", (agent,)
            )
            return {r["path"]: Known(r["sha256"], r["size"], r["mtime_ns"], r["model"]) for r in rows}

    def agents(self) -> set[str]:
        """Return the names of the agents that have embedded files."""
        with self._database.connect() as db:
            return {row["agent"] for row in db.execute("SELECT DISTINCT agent FROM files")}

    def counts(self) -> dict[str, int]:
        """Return the total numbers of `files` and `chunks`."""
        with self._database.connect() as db:
            query = "SELECT (SELECT count(*) FROM files) AS files, (SELECT count(*) FROM chunks) AS chunks"
            [row] = db.execute(query).fetchall()
            return {"files": row["files"], "chunks": row["chunks"]}

    def counts_by_agent(self) -> dict[str, dict[str, int]]:
        """Return the numbers of `files` and `passages` (chunks) of each agent that has files."""
        query = (
            "SELECT agent, count(DISTINCT files.id) AS files, count(chunks.id) AS passages"
            " FROM files LEFT JOIN chunks ON file_id = files.id GROUP BY agent ORDER BY agent"
        )
        with self._database.connect() as db:
            rows = db.execute(query).fetchall()
            return {row["agent"]: {"files": row["files"], "passages": row["passages"]} for row in rows}

    def vector_sizes(self, model: str) -> dict[int, int]:
        """Return how many chunks have a vector of this model, by the number of dimensions of the vector."""
        with self._database.connect() as db:
            return vector_sizes(db, model)

    def drop_vectors_of_other_sizes(self, model: str, dim: int) -> int:
        """Delete the vectors of this model that do not have `dim` dimensions, and return how many there
        were.
        """
        with self._database.connect() as db:
            dropped = db.execute("DELETE FROM vectors WHERE model = ? AND dim <> ?", (model, dim)).rowcount
            if dropped:
                _increase_generation(db)
        return dropped

    def replace_files(self, agent: str, files: Iterable[tuple[str, Known, list[Chunk]]]) -> None:
        """Replace each of the agent's `files` (path, facts, chunks) in the store, all in one transaction."""
        with self._database.connect() as db:
            for path, known, chunks in files:
                _replace_file(db, agent, path, known, chunks)
            _increase_generation(db)

    def touch_files(self, agent: str, touched: Mapping[str, Known]) -> None:
        """Store the new sizes and dates of files with unchanged content, so that they need not be
        read again.
        """
        with self._database.connect() as db:
            db.executemany(
                "UPDATE files SET size = ?, mtime_ns = ? WHERE agent = ? AND path = ?",
                [(known.size, known.mtime_ns, agent, path) for path, known in touched.items()],
            )

    def forget_files(self, agent: str, paths: Iterable[str]) -> None:
        """Delete the agent's files with these paths, and their chunks."""
        with self._database.connect() as db:
            for path in paths:
                _delete_file(db, agent, path)
            _increase_generation(db)

    def files_lacking_vectors(self, agent: str, model: str) -> list[str]:
        """Return the paths of the agent's files that have a chunk without a vector of this model."""
        with self._database.connect() as db:
            rows = db.execute(
                f"SELECT DISTINCT path FROM {CHUNKS}"
                " LEFT JOIN vectors ON vectors.text_sha = chunks.text_sha AND vectors.model = ?"
                " WHERE agent = ? AND vectors.text_sha IS NULL",
                (model, agent),
            )
            return [row["path"] for row in rows]

    def generation(self) -> int:
        """Return the generation of the chunks, a number that grows with each change of the chunks. A search
        index that was built from another generation is stale.

        The generation of a new database is 0. The first change sets it to the time in nanoseconds since 1970,
        and each further change adds 1. So if a new database replaces this one, their generations differ, and
        an index that was built from the old database is stale, too.
        """
        return int(self._database.meta("knowledge_generation") or 0)

    def chunks(self, ids: Iterable[int]) -> dict[int, dict[str, str]]:
        """Return agent, file, heading and text of the chunks by id, without chunks that have been deleted."""
        wanted = list(ids)
        if not wanted:
            return {}
        marks = ", ".join("?" * len(wanted))
        with self._database.connect() as db:
            rows = db.execute(
                "SELECT chunks.id AS id, agent, path AS file, heading, text"
                f" FROM {CHUNKS} WHERE chunks.id IN ({marks})",
                wanted,
            )
            return {
                row["id"]: {name: row[name] for name in ("agent", "file", "heading", "text")} for row in rows
            }

    def outline(self, agent: str) -> list[tuple[str, str, str]]:
        """Return (file, heading, text) of the agent's chunks, in the order of the files and of the chunks in
        them.
        """
        with self._database.connect() as db:
            rows = db.execute(
                f"SELECT path, heading, text FROM {CHUNKS} WHERE agent = ? ORDER BY path, ordinal", (agent,)
            )
            return [(row["path"], row["heading"], row["text"]) for row in rows]


def vector_sizes(db: Connection, model: str) -> dict[int, int]:
    """Return how many chunks have a vector of this model, by the number of dimensions of the vector."""
    rows = db.execute(
        "SELECT dim, count(*) AS chunks FROM chunks"
        " JOIN vectors ON vectors.text_sha = chunks.text_sha AND vectors.model = ? GROUP BY dim",
        (model,),
    )
    return {row["dim"]: row["chunks"] for row in rows}


def main_size(sizes: Mapping[int, int]) -> int:
    """Return the number of dimensions that most vectors have; 0 if there are no vectors. `sizes` has the
    number of vectors by their number of dimensions.
    """
    return max(sizes, key=lambda dim: (sizes[dim], dim), default=0)


def _delete_file(db: Connection, agent: str, path: str) -> None:
    """Delete a file and its chunks. First set the date of the chunks' vectors to the present, because a
    vector that no chunk uses is kept for some time after its date (`VectorCache.drop_unused`).
    """
    db.execute(
        "UPDATE vectors SET made_at = ? WHERE (text_sha, model) IN"
        f" (SELECT chunks.text_sha, files.model FROM {CHUNKS} WHERE agent = ? AND path = ?)",
        (time.time(), agent, path),
    )
    db.execute("DELETE FROM files WHERE agent = ? AND path = ?", (agent, path))


def _replace_file(db: Connection, agent: str, path: str, known: Known, chunks: list[Chunk]) -> None:
    _delete_file(db, agent, path)
    [added] = db.execute(
        "INSERT INTO files (agent, path, sha256, size, mtime_ns, model) VALUES (?, ?, ?, ?, ?, ?)"
        " RETURNING id",
        (agent, path, known.sha256, known.size, known.mtime_ns, known.model),
    ).fetchall()
    db.executemany(
        "INSERT INTO chunks (file_id, ordinal, heading, text, text_sha) VALUES (?, ?, ?, ?, ?)",
        [(added["id"], n, c.heading, c.text, text_sha(c.embedded_text)) for n, c in enumerate(chunks)],
    )


def _increase_generation(db: Connection) -> None:
    """Increase the generation in the database by one. It is a number by which a search index detects that the
    chunks have changed since the index was built. If no generation is stored yet, store the time in
    nanoseconds since 1970.

    A new database does not begin with 1, because a process may still have a search index that was built from
    an earlier database in the same place. If the new database reached the generation of that index, the index
    would not be rebuilt, although its chunk ids belong to other chunks now.
    """
    db.execute(
        "INSERT INTO meta (key, value) VALUES ('knowledge_generation', ?) ON CONFLICT (key)"
        " DO UPDATE SET value = CAST(CAST(meta.value AS BIGINT) + 1 AS TEXT)",
        (str(time.time_ns()),),
    )
