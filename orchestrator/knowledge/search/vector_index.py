"""Every chunk's vector in one numpy matrix, for the search by meaning.

20,000 chunks of 384 dimensions are 30 MB, 50,000 are 77 MB; the rows stream from the database straight into
the matrix. After a change it is built anew, but no more than a twentieth of the time goes into that: while a
long update runs, a search may see the chunks of a moment ago (those that are gone are left out all the same).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from orchestrator.knowledge.search.scope import Scope
from orchestrator.knowledge.store import CHUNKS, KnowledgeStore
from orchestrator.storage.database import Database, Result

if TYPE_CHECKING:
    import numpy as np

SHARE_OF_TIME = 20
IDLE_S = 600.0


@dataclass(frozen=True)
class Index:
    """Row n of `matrix` is the vector of chunk `ids[n]`, of file `paths[files[n]]` (agent, path)."""

    generation: int
    dim: int
    ids: np.ndarray
    files: np.ndarray
    paths: list[tuple[str, str]]
    matrix: np.ndarray

    def nearest(self, vector: list[float], scope: Scope, most: int) -> list[tuple[int, float]]:
        """(chunk id, cosine similarity) of the nearest chunks in the scope, nearest first."""
        import numpy as np

        scores = self.matrix @ np.asarray(vector, dtype=np.float32)
        rows = np.arange(len(scores))
        if not scope.everything:
            taken = np.fromiter(
                (scope.takes(*path) for path in self.paths), dtype=bool, count=len(self.paths)
            )
            rows = rows[taken[self.files]]
            scores = scores[rows]
        if len(rows) > most:
            best = np.argpartition(scores, -most)[-most:]
            rows, scores = rows[best], scores[best]
        order = np.argsort(-scores, kind="stable")
        return [
            (int(self.ids[row]), float(score)) for row, score in zip(rows[order], scores[order], strict=True)
        ]


class CurrentIndex:
    """The index as the database stands now, or stood a moment ago; built when it is first asked for."""

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
        self._asked_at = clock()
        self._building = threading.Lock()

    def get(self, dim: int) -> Index:
        """The index of the vectors that have `dim` dimensions."""
        with self._building:
            self._asked_at = self._clock()
            index = self._index
            if index is None or index.dim != dim or self._stale(index):
                began = self._clock()
                self._index = index = self._build(self._store.generation(), dim)
                self._rebuild_from = self._clock() + SHARE_OF_TIME * (self._clock() - began)
            return index

    def rest(self) -> None:
        """Let the matrix go where nobody has searched for a while: it is most of this process's memory."""
        with self._building:
            if self._clock() - self._asked_at >= IDLE_S:
                self._index = None

    def _stale(self, index: Index) -> bool:
        return self._clock() >= self._rebuild_from and index.generation != self._store.generation()

    def _build(self, generation: int, dim: int) -> Index:
        with self._database.connect() as db:
            db.execute("BEGIN")  # the count and the rows are of one moment
            most = db.execute("SELECT count(*) AS n FROM chunks").fetchall()[0]["n"]
            rows = db.execute(
                f"SELECT chunks.id AS id, files.id AS file, agent, path, vector FROM {CHUNKS}"
                " JOIN vectors ON vectors.text_sha = chunks.text_sha AND vectors.model = ?"
                " WHERE vectors.dim = ? ORDER BY chunks.id",
                (self._model, dim),
            )
            return _filled(generation, dim, most, rows)


def _filled(generation: int, dim: int, most: int, rows: Result) -> Index:
    import numpy as np

    ids, files = np.empty(most, dtype=np.int64), np.empty(most, dtype=np.int32)
    matrix = np.empty((most, dim), dtype=np.float32)
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
