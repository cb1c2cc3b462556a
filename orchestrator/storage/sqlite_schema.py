"""Define the tables of orchestrator.db: one tuple of statements per version. Pure.

A released version never changes; each change of the tables is a further tuple.
"""

from __future__ import annotations

FIRST = (
    "CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL)",
    """CREATE TABLE cycles (
        id INTEGER PRIMARY KEY, started_at REAL NOT NULL, finished_at REAL NOT NULL,
        trigger TEXT NOT NULL, record TEXT NOT NULL)""",
    """CREATE TABLE files (
        id INTEGER PRIMARY KEY, agent TEXT NOT NULL, path TEXT NOT NULL, sha256 TEXT NOT NULL,
        size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, model TEXT NOT NULL, UNIQUE (agent, path))""",
    """CREATE TABLE chunks (
        id INTEGER PRIMARY KEY, file_id INTEGER NOT NULL REFERENCES files (id) ON DELETE CASCADE,
        ordinal INTEGER NOT NULL, heading TEXT NOT NULL, text TEXT NOT NULL, text_sha TEXT NOT NULL)""",
    "CREATE INDEX chunks_by_file ON chunks (file_id)",
    "CREATE INDEX chunks_by_text ON chunks (text_sha)",
    """CREATE TABLE vectors (
        text_sha TEXT NOT NULL, model TEXT NOT NULL, dim INTEGER NOT NULL, vector BLOB NOT NULL,
        made_at REAL NOT NULL, PRIMARY KEY (text_sha, model)) WITHOUT ROWID""",
)

# AUTOINCREMENT never reuses a chunk's id: a slightly old search index may name a deleted chunk, but never a
# different one. The full-text index stores no text; triggers keep it current, also when a file is deleted
# with its chunks. Rows of 1.6 KB would take a page of 4 KB each in a table WITHOUT ROWID.
WORDS_AND_NOTES = (
    "DROP INDEX chunks_by_file",
    "DROP INDEX chunks_by_text",
    "ALTER TABLE chunks RENAME TO chunks_before",
    """CREATE TABLE chunks (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        file_id INTEGER NOT NULL REFERENCES files (id) ON DELETE CASCADE,
        ordinal INTEGER NOT NULL, heading TEXT NOT NULL, text TEXT NOT NULL, text_sha TEXT NOT NULL)""",
    "INSERT INTO chunks SELECT * FROM chunks_before",
    "DROP TABLE chunks_before",
    "CREATE INDEX chunks_by_file ON chunks (file_id)",
    "CREATE INDEX chunks_by_text ON chunks (text_sha)",
    """CREATE VIRTUAL TABLE words USING fts5(
        heading, text, content='chunks', content_rowid='id',
        tokenize='porter unicode61 remove_diacritics 2')""",
    "INSERT INTO words (words, rank) VALUES ('rank', 'bm25(2.0, 1.0)')",
    "INSERT INTO words (words) VALUES ('rebuild')",
    """CREATE TRIGGER chunk_added AFTER INSERT ON chunks BEGIN
        INSERT INTO words (rowid, heading, text) VALUES (new.id, new.heading, new.text);
    END""",
    """CREATE TRIGGER chunk_removed AFTER DELETE ON chunks BEGIN
        INSERT INTO words (words, rowid, heading, text) VALUES ('delete', old.id, old.heading, old.text);
    END""",
    """CREATE TABLE vectors_by_row (
        text_sha TEXT NOT NULL, model TEXT NOT NULL, dim INTEGER NOT NULL, vector BLOB NOT NULL,
        made_at REAL NOT NULL, UNIQUE (text_sha, model))""",
    "INSERT INTO vectors_by_row SELECT * FROM vectors",
    "DROP TABLE vectors",
    "ALTER TABLE vectors_by_row RENAME TO vectors",
    """CREATE TABLE notes (
        agent TEXT PRIMARY KEY, text TEXT NOT NULL, digest_sha TEXT NOT NULL, model TEXT NOT NULL,
        made_at REAL NOT NULL)""",
)

VERSIONS = (FIRST, WORDS_AND_NOTES)
