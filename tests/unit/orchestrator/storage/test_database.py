"""The SQLite database: migration, replacement of a damaged file, locks and compaction."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from orchestrator.errors import ConfigError, DatabaseFailed
from orchestrator.knowledge.folders.chunks import Chunk
from orchestrator.knowledge.search.scope import EVERYTHING
from orchestrator.knowledge.search.sqlite_ranker import SqliteRanker
from orchestrator.knowledge.search.vector_index import CurrentIndex
from orchestrator.knowledge.store import KnowledgeStore, Known
from orchestrator.knowledge.vectors import VectorCache
from orchestrator.storage import sqlite_schema
from orchestrator.storage.database import Database
from orchestrator.storage.postgres import PostgresDatabase
from orchestrator.storage.sqlite import SqliteDatabase
from orchestrator.storage.sqlite_file import locked, move_aside_if_corrupt
from tests.services.real_postgres import RealPostgres


def test_corrupt_database_at_start_is_moved_aside_with_a_notice(tmp_path: Path):
    path = tmp_path / "orchestrator.db"
    path.write_bytes(b"no database" * 1000)
    database = SqliteDatabase(path)
    database.prepare()
    assert "was corrupt" in database.notices[0]
    assert database.meta("anything") is None
    assert len(list(tmp_path.glob("orchestrator.db.corrupt-*"))) == 1


def test_undamaged_database_is_opened_again_without_a_notice(tmp_path: Path):
    database = SqliteDatabase(tmp_path / "orchestrator.db")
    database.prepare()
    database.set_meta("k", "v")
    again = SqliteDatabase(tmp_path / "orchestrator.db")
    again.prepare()
    assert again.meta("k") == "v"
    assert again.notices == []


def test_file_lock_refuses_a_second_holder_until_it_is_released(tmp_path: Path):
    with locked(tmp_path / "l") as first, locked(tmp_path / "l", blocking=False) as second:
        assert (first, second) == (True, False)
    with locked(tmp_path / "l", blocking=False) as third:
        assert third


def test_released_database_lock_can_be_taken_again_at_once(database: Database):
    """Postgres releases locks some time after their connection is closed: one update in 300 failed."""
    for _ in range(20):
        with database.lock("knowledge") as first, database.lock("knowledge") as second:
            assert (first, second) == (True, False)


def prepared(tmp_path: Path) -> SqliteDatabase:
    database = SqliteDatabase(tmp_path / "orchestrator.db")
    database.prepare()
    return database


def filled(database: SqliteDatabase, files: int) -> KnowledgeStore:
    store = KnowledgeStore(database)
    known = Known("sha", 1, 1, "m")
    cut = [[Chunk(f"H {n}", f"alpha {n} {k} " + "word " * 150) for k in range(4)] for n in range(files)]
    store.replace_files("docs", [(f"{n}.md", known, chunks) for n, chunks in enumerate(cut)])
    return store


def test_database_of_the_first_version_is_migrated_with_its_chunks_and_gets_a_word_index(tmp_path: Path):
    path = tmp_path / "orchestrator.db"
    with closing(sqlite3.connect(path)) as db, db:
        for statement in sqlite_schema.FIRST:
            db.execute(statement)
        db.execute("PRAGMA user_version = 1")
        db.execute("INSERT INTO files VALUES (7, 'docs', 'a.md', 'sha', 1, 1, 'm')")
        db.execute("INSERT INTO chunks VALUES (5, 7, 0, 'Breaker', 'it opens', 'text-sha')")
        db.execute("INSERT INTO vectors VALUES ('text-sha', 'm', 1, x'0000803f', 1.0)")
    database = prepared(tmp_path)
    store = KnowledgeStore(database)
    ranker = SqliteRanker(database, CurrentIndex(database, store, "m"))
    assert ranker.by_words('"breakers"', EVERYTHING, 5) == [5]
    assert store.files_lacking_vectors("docs", "m") == []
    assert store.chunks([5])[5]["file"] == "a.md"
    store.replace_files("docs", [("a.md", Known("sha", 1, 1, "m"), [Chunk("", "other")])])
    assert ranker.by_words('"breakers"', EVERYTHING, 5) == []
    assert ranker.by_words('"other"', EVERYTHING, 5) == [6]  # the id of a deleted chunk is not used again


def test_database_damaged_while_in_use_is_moved_aside_with_a_notice(tmp_path: Path):
    database = prepared(tmp_path)
    store = filled(database, 200)
    with database.connect() as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    raw = bytearray(database.path.read_bytes())
    raw[8192 : len(raw) - 8192] = b"\xff" * (len(raw) - 16384)
    database.path.write_bytes(raw)
    with pytest.raises(DatabaseFailed):
        store.outline("docs")
    assert "was corrupt" in database.notices[0]
    assert store.counts() == {"files": 0, "chunks": 0}
    assert next(tmp_path.glob("orchestrator.db.corrupt-*")).stat().st_size == len(raw)


def test_database_with_a_damaged_full_text_index_rebuilds_only_the_index(tmp_path: Path):
    database = prepared(tmp_path)
    store = filled(database, 20)
    ranker = SqliteRanker(database, CurrentIndex(database, store, "m"))
    with database.connect() as db:
        db.execute("UPDATE words_data SET block = x'00' WHERE id > 10")
    with pytest.raises(DatabaseFailed):
        ranker.by_words('"alpha"', EVERYTHING, 5)
    assert "full-text index" in database.notices[0]
    assert len(ranker.by_words('"alpha"', EVERYTHING, 100)) == 80


def check_with_index(connection: sqlite3.Connection) -> str:
    """Check the full-text index, as the `quick_check` of SQLite 3.44 and newer does."""
    try:
        connection.execute("INSERT INTO words (words) VALUES ('integrity-check')")
    except sqlite3.DatabaseError:
        return 'fts5: corruption found reading blob 137438953473 from table "words"'
    return "ok"


def test_database_check_of_a_newer_sqlite_that_finds_a_damaged_index_rebuilds_only_the_index(tmp_path: Path):
    """The image of the containers has SQLite 3.46: it had all knowledge put aside."""
    database = prepared(tmp_path)
    store = filled(database, 20)
    with database.connect() as db:
        db.execute("UPDATE words_data SET block = x'00' WHERE id > 10")
    assert "full-text index" in move_aside_if_corrupt(database.path, quick_check=check_with_index)
    assert move_aside_if_corrupt(database.path, quick_check=check_with_index) == ""
    assert store.counts() == {"files": 20, "chunks": 80}
    ranker = SqliteRanker(database, CurrentIndex(database, store, "m"))
    assert len(ranker.by_words('"alpha"', EVERYTHING, 100)) == 80


def test_database_that_a_rebuilt_index_does_not_repair_is_moved_aside(tmp_path: Path):
    database = prepared(tmp_path)
    filled(database, 1)
    said = move_aside_if_corrupt(database.path, quick_check=lambda connection: "malformed FTS5 table")
    assert "was corrupt" in said
    assert not database.path.exists()


def test_search_index_of_a_replaced_database_is_not_used_for_the_new_one(tmp_path: Path):
    """A new database counted its changes from 0, so that the index of the old one counted as current, and
    named wrong chunks.
    """
    database = prepared(tmp_path)
    store = filled(database, 1)
    now = 0.0
    index = CurrentIndex(database, store, "m", lambda: now)
    VectorCache(database).keep("m", [Chunk("H 0", f"alpha 0 0 {'word ' * 150}").embedded_text], [[1.0, 0.0]])
    assert len(index.get().ids) == 1
    for suffix in ("", "-wal", "-shm"):
        database.path.with_name(database.path.name + suffix).unlink(missing_ok=True)
    now = 1e9
    filled(database, 1)
    assert len(index.get().ids) == 0


def test_compaction_after_deleting_files_shrinks_the_database_file(tmp_path: Path):
    database = prepared(tmp_path)
    store = filled(database, 3000)
    ranker = SqliteRanker(database, CurrentIndex(database, store, "m"))
    store.forget_files("docs", [f"{n}.md" for n in range(2900)])
    with database.connect() as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    before = database.path.stat().st_size
    freed = database.compact()
    assert freed > 0
    assert database.path.stat().st_size <= before - freed
    assert len(ranker.by_words('"alpha"', EVERYTHING, 1000)) == 400
    assert database.compact() == 0


def test_only_the_newest_three_corrupt_copies_are_kept_and_none_is_overwritten(tmp_path: Path):
    """All copies were kept forever, and two within one second got the same name."""
    path = tmp_path / "orchestrator.db"
    for number in range(5):
        path.write_text(f"garbage {number}")
        path.with_name(f"{path.name}-shm").write_text(f"side file {number}")
        move_aside_if_corrupt(path)
    kept = sorted(tmp_path.glob("orchestrator.db.corrupt-*"))
    assert [copy.read_text() for copy in kept if copy.name.endswith("Z")] == [
        f"garbage {number}" for number in (2, 3, 4)
    ]
    assert [copy.read_text() for copy in kept if copy.name.endswith("Z-shm")] == [
        f"side file {number}" for number in (2, 3, 4)
    ]


def test_sqlite_files_can_be_read_by_their_owner_only(tmp_path: Path):
    """In a home that others may enter, all users could read the knowledge."""
    database = prepared(tmp_path)
    with database.connect() as db:
        db.execute("INSERT INTO meta (key, value) VALUES ('k', 'v')")
        names = ("orchestrator.db", "orchestrator.db-wal", "orchestrator.db-shm")
        assert [(tmp_path / name).stat().st_mode & 0o777 for name in names] == [0o600] * 3


def test_sqlite_database_of_a_newer_version_is_refused_and_not_written(tmp_path: Path):
    database = prepared(tmp_path)
    with closing(sqlite3.connect(database.path)) as db:
        db.execute("PRAGMA user_version = 99")
    with pytest.raises(DatabaseFailed, match="was written by a newer version of Vestal"):
        database.set_meta("k", "v")  # another process migrated it while this one ran
    with pytest.raises(ConfigError, match=r"tables have version 99.*: install that version again"):
        SqliteDatabase(database.path).prepare()


def test_postgres_database_of_a_newer_version_is_refused(postgres: RealPostgres):
    url = postgres.new_database()
    database = PostgresDatabase(url)
    database.prepare()
    with database.connect() as db:
        db.execute("INSERT INTO versions VALUES (99, now())")
    database.close()
    with pytest.raises(ConfigError, match=r"tables have version 99.* or set VESTAL_DATABASE_URL"):
        PostgresDatabase(url).prepare()
