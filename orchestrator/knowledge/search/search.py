"""Search by meaning (vectors) and by words (full text), join both rankings by rank, and rerank the result if
a reranking model is configured.

If no backend can embed the question, only words are searched; if the question has no words, only meaning. The
result says which rankings were used.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from dataclasses import dataclass, replace

from orchestrator.errors import BackendError, DatabaseFailed, RequestRejected
from orchestrator.events import emit
from orchestrator.knowledge.folders.chunks import Chunk
from orchestrator.knowledge.llm_interfaces import Embedder
from orchestrator.knowledge.search.fusion import Ranking, fused
from orchestrator.knowledge.search.keywords import contains_identifier, match_of
from orchestrator.knowledge.search.ranker import Ranker
from orchestrator.knowledge.search.reranking import CANDIDATES, Reranking
from orchestrator.knowledge.search.scope import Scope
from orchestrator.knowledge.store import KnowledgeStore
from orchestrator.knowledge.vectors import VectorCache

MAX_RESULTS = 50
DEPTH = 4  # each ranking returns this many times the wanted results, so that chunks in both can win
MIN_DEPTH = 40
SPARE = 20  # a slightly stale index may return chunks that no longer exist
QUERY_WAIT_S = 10.0  # a person waits, and words alone can answer
WORDS_WEIGHT = 0.6  # relative to the vectors' 1, since questions often use other words
NAMES_WEIGHT = 1.5  # but identifiers are spelled exactly
TRIM_EVERY = 1000  # new questions


@dataclass(frozen=True)
class Hit:
    """A chunk that a search found.

    `score` is computed from the chunk's ranks in the rankings that the search used, by meaning and by words.
    It is 1.0 if the chunk is the first in each of them, and decreases with every rank. `similarity` is the
    cosine of the chunk's and the question's vectors, and `relevance` the reranker's score; each is None if
    unknown.
    """

    agent: str
    file: str
    heading: str
    text: str
    score: float
    similarity: float | None = None
    relevance: float | None = None

    def as_json(self) -> dict[str, object]:
        figures = {name: getattr(self, name) for name in ("score", "similarity", "relevance")}
        rounded = {name: None if value is None else round(value, 4) for name, value in figures.items()}
        return {**vars(self), **rounded}


@dataclass(frozen=True)
class Findings:
    """The hits of a search, the rankings that were used ("meaning", "words", "reranker"), and a note if one
    of these could not be used.
    """

    hits: list[Hit]
    by: tuple[str, ...]
    note: str = ""

    def as_json(self) -> dict[str, object]:
        return {"results": [hit.as_json() for hit in self.hits], "by": list(self.by), "note": self.note}


class KnowledgeSearch:
    """Searches the knowledge of agents. `client` turns a question into a vector with the embedding model
    `model`, and `vectors` caches it. `ranker` ranks the chunks in `store` by meaning (with the vector) and by
    words.

    `reranking` scores the best chunks of both rankings again with a reranking model, and these scores
    determine the final order. If `reranking` is None, the chunks are in the order of the two joined rankings.
    """

    def __init__(
        self,
        store: KnowledgeStore,
        vectors: VectorCache,
        ranker: Ranker,
        client: Embedder,
        model: str,
        reranking: Reranking | None = None,
    ) -> None:
        self._store = store
        self._vectors = vectors
        self._ranker = ranker
        self._client = client
        self._model = model
        self._reranking = reranking
        self._new_questions = 0

    def release_idle_memory(self) -> None:
        """Release the memory of vectors that no search has used for ten minutes. The orchestrator calls this
        at the end of each cycle, its periodic round of checks and work.
        """
        self._ranker.release_idle_memory()

    async def has_knowledge(self, agents: Collection[str] | None) -> bool:
        """Return True if any of the folders of `agents` (None: any folder) has embedded knowledge. Calls no
        backend.
        """
        known = await asyncio.to_thread(self._store.agents)
        return bool(known) if agents is None else not known.isdisjoint(agents)

    async def search(self, query: str, agents: Collection[str] | None, k: int) -> list[Hit]:
        """Return the best `k` chunks (at most MAX_RESULTS) in the knowledge folders of `agents` (None: of all
        agents), the best first. Raises BackendError if the query cannot be embedded, and RequestRejected if
        its vector has another size than those of the chunks; `find` then searches by words alone.
        """
        vector = await self._vector(query, await asyncio.to_thread(self._ranker.vector_size))
        return (await self._found(query, vector, Scope(agents), k)).hits

    async def find(self, query: str, scope: Scope, k: int) -> Findings:
        """Return the best `k` chunks (at most MAX_RESULTS) in the scope, found by vectors and by words, the
        best first. If the query cannot be embedded within QUERY_WAIT_S seconds, or its vector has another
        size than those of the chunks, search by words alone; the result's `note` then says so.
        """
        vector, note = None, ""
        size = await asyncio.to_thread(self._ranker.vector_size)
        try:
            async with asyncio.timeout(QUERY_WAIT_S):
                vector = await self._vector(query, size)
        except TimeoutError:
            note = f"found by words alone: the query was not embedded within {QUERY_WAIT_S:.0f} s"
        except BackendError as error:
            note = f"found by words alone: {error.message}"
        return await self._found(query, vector, scope, k, note)

    async def _vector(self, query: str, size: int) -> list[float]:
        """Return the query's vector, which has `size` dimensions as the chunks' vectors have (0: any number).
        A stored vector of another size is computed again.

        Raises BackendError if the query cannot be embedded, and RequestRejected if the model gives another
        size, so that the query cannot be compared with the chunks.
        """
        kept = await asyncio.to_thread(self._vectors.vector, query, self._model)
        if kept is not None and size in (0, len(kept)):
            return kept
        vectors = await self._client.embed(self._model, [query])
        await asyncio.to_thread(self._keep, query, vectors)
        if size not in (0, len(vectors[0])):
            raise RequestRejected(
                f"{self._model} gives vectors of {len(vectors[0])} dimensions now, and those of the knowledge"
                f" have {size}; the nightly run embeds it again"
            )
        return vectors[0]

    def _keep(self, query: str, vectors: list[list[float]]) -> None:
        try:
            self._vectors.keep(self._model, [query], vectors)
            self._new_questions += 1
            if self._new_questions % TRIM_EVERY == 0:
                self._vectors.drop_unused(float("inf"))
        except DatabaseFailed as error:  # on a full disk the answer matters, the cache does not
            emit("query_vector_not_kept", str(error))

    async def _found(
        self, query: str, vector: list[float] | None, scope: Scope, k: int, note: str = ""
    ) -> Findings:
        limit = min(k, MAX_RESULTS)
        depth = max(DEPTH * limit, MIN_DEPTH)
        match = match_of(query)
        (
            near,
            words,
        ) = await asyncio.gather(  # in parallel: both release the interpreter lock
            asyncio.to_thread(self._near, vector, scope, depth),
            asyncio.to_thread(self._ranker.by_words, match, scope, depth),
        )
        rankings: dict[str, Ranking] = {}
        if vector:
            rankings["meaning"] = Ranking(list(near))
        if match:
            rankings["words"] = Ranking(words, NAMES_WEIGHT if contains_identifier(query) else WORDS_WEIGHT)
        candidates = limit if self._reranking is None else max(limit, CANDIDATES)
        best = fused(list(rankings.values()), candidates + SPARE)
        rows = await asyncio.to_thread(self._store.chunks, [found for found, _ in best])
        hits = [
            Hit(score=score, similarity=near.get(n), relevance=None, **rows[n])
            for n, score in best
            if n in rows
        ]
        hits, by = hits[:candidates], tuple(rankings)
        if self._reranking is not None and len(hits) > 1:
            scores, why_not = await self._reranking.scores(
                query, [Chunk(hit.heading, hit.text).embedded_text for hit in hits]
            )
            if scores is None:
                note = "; ".join(filter(None, (note, why_not)))
            else:
                scored = [replace(hit, relevance=score) for hit, score in zip(hits, scores, strict=True)]
                hits, by = sorted(scored, key=lambda hit: -(hit.relevance or 0.0)), (*by, "reranker")
        return Findings(hits[:limit], by, note)

    def _near(self, vector: list[float] | None, scope: Scope, depth: int) -> dict[int, float]:
        return dict(self._ranker.by_meaning(vector, scope, depth)) if vector else {}
