"""Hold all vectors in one numpy matrix, for the search by meaning.

20,000 chunks of 384 dimensions take 30 MB, 50,000 take 77 MB; the rows stream from the database into the
matrix. The matrix is rebuilt after a change of the chunks, but after a rebuild that took n seconds, the next
one begins at least 20 n seconds later. So during a long update, a search may use a slightly old matrix;
chunks that have been deleted are left out of its result.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from orchestrator.knowledge.search.scope import Scope
from orchestrator.knowledge.store import CHUNKS, KnowledgeStore, main_size, vector_sizes
from orchestrator.storage.database import Database, Result

if TYPE_CHECKING:
    import numpy as np

REBUILD_PAUSE_FACTOR = 20
"""After a rebuild that took n seconds, the next one may begin 20 · n seconds later."""

IDLE_S = 600.0


@dataclass(frozen=True)
class Index:
    """A matrix of the chunks' vectors (chunks × dim, float32). Row n is the vector of the chunk `ids[n]`; the
    chunk's file is `paths[files[n]]`, a pair (agent, path).

    `generation` is the value of the knowledge store's counter of changes (`KnowledgeStore.generation`) when
    the matrix was built. An index is stale, and is rebuilt, if the counter has another value by now.
    """

    generation: int
    dim: int
    ids: np.ndarray
    files: np.ndarray
    paths: list[tuple[str, str]]
    matrix: np.ndarray

    def nearest(self, vector: list[float], scope: Scope, limit: int) -> list[tuple[int, float]]:
        """Return (chunk id, cosine similarity) of the `limit` chunks in the scope nearest to `vector`, the
        nearest first.
        """
        import numpy as np

        scores = self.matrix @ np.asarray(vector, dtype=np.float32)
        rows = np.arange(len(scores))
        if not scope.everything:
            in_scope = np.fromiter(
                (scope.contains(*path) for path in self.paths), dtype=bool, count=len(self.paths)
            )
            rows = rows[in_scope[self.files]]
            scores = scores[rows]
        if len(rows) > limit:
            best = np.argpartition(scores, -limit)[-limit:]
            rows, scores = rows[best], scores[best]
        order = np.argsort(-scores, kind="stable")
        return [
            (int(self.ids[row]), float(score)) for row, score in zip(rows[order], scores[order], strict=True)
        ]


class CurrentIndex:
    """Keeps the index of the stored vectors in memory. The index is built at the first search, and rebuilt at
    the first search after a change, but not before a pause in proportion to the time that the last build
    took. If the vectors have several sizes (numbers of dimensions), it has only those of the most frequent
    size.
    """

    def __init__(
        self,
        database: Database,
        store: KnowledgeStore,
        model: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._store = store
        self._model = model
        self._clock = clock
        self._index: Index | None = None
        self._rebuild_from = 0.0
        self._used_at = clock()
        self._building = threading.Lock()

    def get(self) -> Index:
        """Return the index, and build it first if it is missing or stale. Without vectors, its `dim` is 0."""
        with self._building:
            self._used_at = self._clock()
            index = self._index
            if index is None or self._stale(index):
                began = self._clock()
                self._index = index = self._build(self._store.generation())
                self._rebuild_from = self._clock() + REBUILD_PAUSE_FACTOR * (self._clock() - began)
            return index

    def release_if_idle(self) -> None:
        """Release the matrix, which is most of this process's memory, if no search has used it for IDLE_S
        seconds.
        """
        with self._building:
            if self._clock() - self._used_at >= IDLE_S:
                self._index = None

    def _stale(self, index: Index) -> bool:
        return self._clock() >= self._rebuild_from and index.generation != self._store.generation()

    def _build(self, generation: int) -> Index:
        with self._database.connect() as db:
            db.execute("BEGIN")  # so that the count and the rows are consistent
            sizes = vector_sizes(db, self._model)
            dim = main_size(sizes)
            rows = db.execute(
                f"SELECT chunks.id AS id, files.id AS file, agent, path, vector FROM {CHUNKS}"
                " JOIN vectors ON vectors.text_sha = chunks.text_sha AND vectors.model = ?"
                " WHERE vectors.dim = ? ORDER BY chunks.id",
                (self._model, dim),
            )
            return _filled(generation, dim, sizes.get(dim, 0), rows)


def _filled(generation: int, dim: int, row_count: int, rows: Result) -> Index:
    import numpy as np

    ids, files = np.empty(row_count, dtype=np.int64), np.empty(row_count, dtype=np.int32)
    matrix = np.empty((row_count, dim), dtype=np.float32)
    numbers: dict[int, int] = {}
    paths: list[tuple[str, str]] = []
    count = 0
    for row in rows:
        number = numbers.setdefault(row["file"], len(paths))
        if number == len(paths):
            paths.append((row["agent"], row["path"]))
        ids[count], files[count] = row["id"], number
        matrix[count] = np.frombuffer(row["vector"], dtype=np.float32)
        count += 1
    return Index(generation, dim, ids[:count], files[:count], paths, matrix[:count])
