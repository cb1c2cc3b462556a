"""Define the tables in Postgres: one tuple of statements per version. Pure.

A released version never changes; each change of the tables is a further tuple. The tables are in a schema of
their own, separate from DBOS's. Texts sort by their bytes, as in SQLite. `vector` has no fixed number of
dimensions, because models differ.
"""

from __future__ import annotations

FIRST = (
    "CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL)",
    """CREATE TABLE cycles (
        id BIGSERIAL PRIMARY KEY, started_at DOUBLE PRECISION NOT NULL, finished_at DOUBLE PRECISION NOT NULL,
        trigger TEXT NOT NULL, record TEXT NOT NULL)""",
    """CREATE TABLE files (
        id BIGSERIAL PRIMARY KEY, agent TEXT COLLATE "C" NOT NULL, path TEXT COLLATE "C" NOT NULL,
        sha256 TEXT NOT NULL, size BIGINT NOT NULL, mtime_ns BIGINT NOT NULL, model TEXT NOT NULL,
        UNIQUE (agent, path))""",
    """CREATE TABLE chunks (
        id BIGSERIAL PRIMARY KEY, file_id BIGINT NOT NULL REFERENCES files (id) ON DELETE CASCADE,
        ordinal INTEGER NOT NULL, heading TEXT NOT NULL, text TEXT NOT NULL, text_sha TEXT NOT NULL,
        words TSVECTOR GENERATED ALWAYS AS (
            setweight(to_tsvector('english', heading), 'A') || setweight(to_tsvector('english', text), 'B')
        ) STORED)""",
    "CREATE INDEX chunks_by_file ON chunks (file_id)",
    "CREATE INDEX chunks_by_text ON chunks (text_sha)",
    "CREATE INDEX chunks_by_words ON chunks USING GIN (words)",
    """CREATE TABLE vectors (
        text_sha TEXT NOT NULL, model TEXT NOT NULL, dim INTEGER NOT NULL, vector VECTOR NOT NULL,
        made_at DOUBLE PRECISION NOT NULL, PRIMARY KEY (text_sha, model))""",
    """CREATE TABLE notes (
        agent TEXT COLLATE "C" PRIMARY KEY, text TEXT NOT NULL, digest_sha TEXT NOT NULL, model TEXT NOT NULL,
        made_at DOUBLE PRECISION NOT NULL)""",
    # The workers, and how many workers died while each task ran.
    """CREATE TABLE workers (
        worker TEXT PRIMARY KEY, incarnation TEXT NOT NULL, beats BIGINT NOT NULL,
        started_at DOUBLE PRECISION NOT NULL)""",
    "CREATE TABLE taken_over (task TEXT PRIMARY KEY, times INTEGER NOT NULL)",
)

VERSIONS = (FIRST,)
