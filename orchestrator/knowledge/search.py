"""Search by meaning: the query's vector against every chunk's, in numpy.

The matrix is built when it is first asked for and again when the chunks have changed; 20,000 chunks of 384
dimensions are 30 MB and take under 1 ms.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..llm_client import LlmClient
from .store import KnowledgeStore

if TYPE_CHECKING:
    import numpy as np

MOST_RESULTS = 50


@dataclass(frozen=True)
class Hit:
    """A chunk and its cosine similarity to the query."""

    agent: str
    file: str
    heading: str
    text: str
    score: float

    def as_json(self) -> dict[str, object]:
        return {**vars(self), "score": round(self.score, 4)}


@dataclass(frozen=True)
class _Index:
    generation: int
    ids: list[int]
    agents: list[str]
    matrix: np.ndarray


class KnowledgeSearch:
    def __init__(self, store: KnowledgeStore, client: LlmClient, model: str) -> None:
        self._store = store
        self._client = client
        self._model = model
        self._index: _Index | None = None
        self._building = threading.Lock()

    async def anything(self, agents: Collection[str] | None) -> bool:
        """Whether any of these folders (None: of all) has embedded knowledge; asks no backend."""
        known = await asyncio.to_thread(self._store.agents)
        return bool(known) if agents is None else not known.isdisjoint(agents)

    async def search(self, query: str, agents: Collection[str] | None, k: int) -> list[Hit]:
        """The k chunks nearest to the query; `agents` None means everybody's. Raises BackendError."""
        vector = await self._vector(query)
        return await asyncio.to_thread(self._nearest, vector, agents, min(k, MOST_RESULTS))

    async def _vector(self, query: str) -> list[float]:
        kept = await asyncio.to_thread(self._store.vector, query, self._model)
        if kept is not None:
            return kept
        vectors = await self._client.embed(self._model, [query])
        await asyncio.to_thread(self._store.keep_vectors, self._model, [query], vectors)
        return vectors[0]

    def _nearest(self, vector: list[float], agents: Collection[str] | None, k: int) -> list[Hit]:
        import numpy as np

        index = self._fresh_index()
        if not index.ids or index.matrix.shape[1] != len(vector):
            return []
        scores = index.matrix @ np.asarray(vector, dtype=np.float32)
        if agents is not None:
            scores = np.where(np.isin(index.agents, list(agents)), scores, -2.0)
        hits = []
        for place in np.argsort(scores)[::-1][:k]:
            chunk = self._store.chunk(index.ids[place]) if scores[place] > -2.0 else None
            if chunk is not None:
                hits.append(Hit(score=float(scores[place]), **chunk))
        return hits

    def _fresh_index(self) -> _Index:
        with self._building:
            generation = self._store.generation()
            if self._index is None or self._index.generation != generation:
                self._index = self._build(generation)
            return self._index

    def _build(self, generation: int) -> _Index:
        import numpy as np

        rows = self._store.searchable(self._model)
        dim = len(rows[0][2]) // 4 if rows else 0
        rows = [row for row in rows if len(row[2]) == dim * 4]
        matrix = np.frombuffer(b"".join(row[2] for row in rows), dtype=np.float32).reshape(len(rows), dim)
        return _Index(generation, [row[0] for row in rows], [row[1] for row in rows], matrix)
