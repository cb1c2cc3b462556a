"""Hybrid search: by meaning (vectors) and by words (full text), fused by rank.

Either does without the other: where no backend can embed the question the words alone answer, and a question
without a word is answered by meaning alone. The answer says which it was.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from dataclasses import dataclass

from orchestrator.errors import BackendError, DatabaseFailed
from orchestrator.events import emit
from orchestrator.knowledge.llm_interfaces import Embedder
from orchestrator.knowledge.search.fusion import Ranking, fused
from orchestrator.knowledge.search.keywords import match_of, names_a_thing
from orchestrator.knowledge.search.ranker import Ranker
from orchestrator.knowledge.search.scope import Scope
from orchestrator.knowledge.store import KnowledgeStore
from orchestrator.knowledge.vectors import VectorCache

MOST_RESULTS = 50
DEPTH = 4  # so many times what is asked for is ranked by each, so that a chunk both find may win
LEAST_DEPTH = 40
SPARE = 20  # of an index of a moment ago, some may be gone
QUERY_WAIT_S = 10.0  # a person waits for the answer, and there are the words
WORDS_WEIGHT = 0.6  # to the vectors' 1: a question is often put in other words
NAMES_WEIGHT = 1.5  # but a name is not
TRIM_EVERY = 1000  # new questions


@dataclass(frozen=True)
class Hit:
    """A chunk; `score` is 1.0 where every ranking has it first, `similarity` its cosine, if it has one."""

    agent: str
    file: str
    heading: str
    text: str
    score: float
    similarity: float | None = None

    def as_json(self) -> dict[str, object]:
        similarity = None if self.similarity is None else round(self.similarity, 4)
        return {**vars(self), "score": round(self.score, 4), "similarity": similarity}


@dataclass(frozen=True)
class Findings:
    """What was found, by what ("meaning", "words"), and, where one of them could not help, why."""

    hits: list[Hit]
    by: tuple[str, ...]
    note: str = ""

    def as_json(self) -> dict[str, object]:
        return {"results": [hit.as_json() for hit in self.hits], "by": list(self.by), "note": self.note}


class KnowledgeSearch:
    def __init__(
        self, store: KnowledgeStore, vectors: VectorCache, ranker: Ranker, client: Embedder, model: str
    ) -> None:
        self._store = store
        self._vectors = vectors
        self._ranker = ranker
        self._client = client
        self._model = model
        self._asked = 0

    def rest(self) -> None:
        """Called now and then: let go of what was not used for a while."""
        self._ranker.rest()

    async def anything(self, agents: Collection[str] | None) -> bool:
        """Whether any of these folders (None: of all) has embedded knowledge; asks no backend."""
        known = await asyncio.to_thread(self._store.agents)
        return bool(known) if agents is None else not known.isdisjoint(agents)

    async def search(self, query: str, agents: Collection[str] | None, k: int) -> list[Hit]:
        """The best k chunks by meaning and words; raises BackendError where the query cannot be embedded."""
        vector = await self._vector(query)
        return (await self._found(query, vector, Scope(agents), k)).hits

    async def find(self, query: str, scope: Scope, k: int) -> Findings:
        """As `search`, and by words alone, saying so, where the query cannot be embedded (in time)."""
        vector, note = None, ""
        try:
            async with asyncio.timeout(QUERY_WAIT_S):
                vector = await self._vector(query)
        except TimeoutError:
            note = f"found by words alone: the query was not embedded within {QUERY_WAIT_S:.0f} s"
        except BackendError as error:
            note = f"found by words alone: {error.message}"
        return await self._found(query, vector, scope, k, note)

    async def _vector(self, query: str) -> list[float]:
        kept = await asyncio.to_thread(self._vectors.vector, query, self._model)
        if kept is not None:
            return kept
        vectors = await self._client.embed(self._model, [query])
        await asyncio.to_thread(self._keep, query, vectors)
        return vectors[0]

    def _keep(self, query: str, vectors: list[list[float]]) -> None:
        try:
            self._vectors.keep(self._model, [query], vectors)
            self._asked += 1
            if self._asked % TRIM_EVERY == 0:
                self._vectors.drop_unused(float("inf"))
        except DatabaseFailed as error:  # a full disk: the answer matters, the cache does not
            emit("query_vector_not_kept", str(error))

    async def _found(
        self, query: str, vector: list[float] | None, scope: Scope, k: int, note: str = ""
    ) -> Findings:
        most = min(k, MOST_RESULTS)
        depth = max(DEPTH * most, LEAST_DEPTH)
        match = match_of(query)
        near, words = await asyncio.gather(  # side by side: numpy and the databases let other threads run
            asyncio.to_thread(self._near, vector, scope, depth),
            asyncio.to_thread(self._ranker.by_words, match, scope, depth),
        )
        rankings: dict[str, Ranking] = {}
        if vector:
            rankings["meaning"] = Ranking(list(near))
        if match:
            rankings["words"] = Ranking(words, NAMES_WEIGHT if names_a_thing(query) else WORDS_WEIGHT)
        best = fused(list(rankings.values()), most + SPARE)
        rows = await asyncio.to_thread(self._store.chunks, [found for found, _ in best])
        hits = [Hit(score=score, similarity=near.get(n), **rows[n]) for n, score in best if n in rows]
        return Findings(hits[:most], tuple(rankings), note)

    def _near(self, vector: list[float] | None, scope: Scope, depth: int) -> dict[int, float]:
        return dict(self._ranker.by_meaning(vector, scope, depth)) if vector else {}
