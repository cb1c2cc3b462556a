"""Store samples in two tables of the journal's file: fine samples for a day, coarse ones for five weeks."""

from __future__ import annotations

import sqlite3
from collections import deque
from itertools import groupby

from host_agent.history.plot import COARSE_STEP_S, start_of
from host_agent.history.sample import Sample, join, pack, unpack
from host_agent.journal import Journal
from vestal.best_effort.failures import FAILURES

FINE_ROWS = 8_640  # one day of samples each 10 s, about 0.8 MB
COARSE_ROWS = 10_080  # five weeks of spans of 5 minutes, about 1 MB
UNSAVED_MAX = 360
WHAT = "history"
TABLES = (
    "CREATE TABLE IF NOT EXISTS samples"
    " (id INTEGER PRIMARY KEY, time INTEGER NOT NULL, packed BLOB NOT NULL)",
    # `joined_up_to` is the id of the newest fine sample that this span or an earlier one contains.
    "CREATE TABLE IF NOT EXISTS sample_spans"
    " (id INTEGER PRIMARY KEY, time INTEGER NOT NULL, packed BLOB NOT NULL, joined_up_to INTEGER NOT NULL)",
)
NOT_JOINED = (
    "SELECT id, time, packed FROM samples"
    " WHERE id > (SELECT coalesce(max(joined_up_to), 0) FROM sample_spans) ORDER BY id"
)


class HistoryStore:
    """Stores samples, which are statistics about memory, requests and tokens, in the journal's file. Fine
    samples are stored as they were taken. A coarse sample combines the fine ones of COARSE_STEP_S seconds.
    The newest `fine_rows` fine and `coarse_rows` coarse samples are kept.

    Samples are numbered in the order in which they were taken. The numbers, not the times, decide which are
    old, so that none is lost if the machine's clock is set. While the disk is full, new samples wait in
    memory. If the journal replaces its damaged file by an empty one, the history is empty again.
    """

    def __init__(self, journal: Journal, fine_rows: int = FINE_ROWS, coarse_rows: int = COARSE_ROWS) -> None:
        self._journal, self._fine_rows, self._coarse_rows = journal, fine_rows, coarse_rows
        self._unsaved: deque[Sample] = deque(maxlen=UNSAVED_MAX)
        self._joined_before: int | None = None

    def add(self, sample: Sample) -> None:
        """Write a sample to the disk, or keep it in memory if the disk is full. If too many wait, drop the
        oldest.
        """
        if len(self._unsaved) == UNSAVED_MAX:
            FAILURES.failed(WHAT, OSError("the disk cannot be written"))  # the oldest sample is dropped
        self._unsaved.append(sample)
        self.keep()

    def keep(self) -> None:
        """Try to write the samples that could not be written earlier, for example because the disk was full.
        If this fails again, record the failure in FAILURES; the samples stay in memory until the next call.
        """
        if not self._unsaved:
            return
        try:
            self._journal.transact(self._write)
        except (sqlite3.Error, OSError) as error:
            FAILURES.failed(WHAT, error, count=0)
            return
        self._unsaved.clear()
        FAILURES.succeeded(WHAT)

    def fine(self, since: float) -> list[Sample]:
        """Return the fine samples, which are not combined, from `since` (seconds since 1970) on. They are
        stored for a day. The list ends with all samples that wait in memory for the disk, whatever their
        time.
        """
        return self._read("SELECT id, time, packed FROM samples WHERE time >= ?", since)

    def coarse(self, since: float) -> list[Sample]:
        """Return the coarse samples, each of which combines the samples of COARSE_STEP_S seconds. Those that
        begin before `since` (seconds since 1970) are left out.

        The list ends with all fine samples that are not yet combined into a coarse one, whatever their time.
        """
        spans = "SELECT id, time, packed FROM sample_spans WHERE time >= ?"
        return self._read(f"SELECT * FROM ({spans}) UNION ALL SELECT * FROM ({NOT_JOINED})", since)

    def _read(self, query: str, since: float) -> list[Sample]:
        def read(connection: sqlite3.Connection) -> list[Sample]:
            _make_tables(connection)
            return [unpack(time, packed) for _, time, packed in connection.execute(query, (since,))]

        try:
            saved = self._journal.transact(read)
        except (sqlite3.Error, OSError):
            saved = []
        return [*saved, *self._unsaved]

    def _write(self, connection: sqlite3.Connection) -> None:
        _make_tables(connection)
        rows = [(sample.time, pack(sample)) for sample in self._unsaved]
        connection.executemany("INSERT INTO samples (time, packed) VALUES (?, ?)", rows)
        now = start_of(self._unsaved[-1].time, COARSE_STEP_S)
        if now != self._joined_before:
            _join_spans(connection, now)
            _delete_old(connection, "samples", self._fine_rows)
            _delete_old(connection, "sample_spans", self._coarse_rows)
            self._joined_before = now


def newest_sample_at(journal: Journal) -> float:
    """Return when the newest sample was taken, in seconds since 1970; 0 if there is none or it cannot be
    read.
    """

    def read(connection: sqlite3.Connection) -> float:
        _make_tables(connection)
        row = connection.execute("SELECT time FROM samples ORDER BY id DESC LIMIT 1").fetchone()
        return float(row[0]) if row else 0.0

    try:
        return journal.transact(read)
    except (sqlite3.Error, OSError):
        return 0.0


def _make_tables(connection: sqlite3.Connection) -> None:
    for table in TABLES:
        connection.execute(table)


def _join_spans(connection: sqlite3.Connection, now: int) -> None:
    """Combine the fine samples of each span of COARSE_STEP_S that has ended into one coarse sample, which is
    a row of the table `sample_spans`. `now` is the start of the current span.
    """
    waiting = [(row_id, unpack(time, packed)) for row_id, time, packed in connection.execute(NOT_JOINED)]
    spans = [(start, list(rows)) for start, rows in groupby(waiting, key=_span_of)]
    while spans and spans[-1][0] == now:
        spans.pop()
    for start, rows in spans:
        joined = join(start, (sample for _, sample in rows))
        values = (start, pack(joined), rows[-1][0])
        connection.execute("INSERT INTO sample_spans (time, packed, joined_up_to) VALUES (?, ?, ?)", values)


def _span_of(row: tuple[int, Sample]) -> int:
    return start_of(row[1].time, COARSE_STEP_S)


def _delete_old(connection: sqlite3.Connection, table: str, rows: int) -> None:
    """Delete all rows of the table but the newest `rows`.

    Row numbers decide which are newest, and not times, because the clock may have been wrong.
    """
    connection.execute(f"DELETE FROM {table} WHERE id <= (SELECT max(id) FROM {table}) - ?", (rows,))
