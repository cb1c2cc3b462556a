"""Create the orchestrator's knowledge in a separate folder, with any embedder, for benchmarks."""

from __future__ import annotations

import os
from pathlib import Path

from orchestrator.knowledge.llm_interfaces import Embedder
from orchestrator.knowledge.search.ranker import ranker_of
from orchestrator.knowledge.search.reranking import Reranking
from orchestrator.knowledge.search.search import KnowledgeSearch
from orchestrator.knowledge.store import KnowledgeStore
from orchestrator.knowledge.update import KnowledgeUpdater
from orchestrator.knowledge.vectors import VectorCache
from orchestrator.storage.database import Database
from orchestrator.storage.postgres import PostgresDatabase
from orchestrator.storage.sqlite import SqliteDatabase

MODEL = "all-minilm"


class KnowledgeHome:
    def __init__(self, home: Path, embedder: Embedder) -> None:
        self.database = _database(home)
        self.database.prepare()
        self.store = KnowledgeStore(self.database)
        self.vectors = VectorCache(self.database)
        self.ranker = ranker_of(self.database, self.store, MODEL)
        self._embedder = embedder
        self.search = self.search_with(None)
        self.updater = KnowledgeUpdater(
            self.store,
            self.vectors,
            embedder,
            MODEL,
            32,
            lambda: self.database.lock("knowledge"),
            lambda: 0.0,
        )

    def search_with(self, reranking: Reranking | None) -> KnowledgeSearch:
        """Return a search of this knowledge that orders its results with `reranking`; None: without
        reranking.
        """
        return KnowledgeSearch(self.store, self.vectors, self.ranker, self._embedder, MODEL, reranking)


def _database(home: Path) -> Database:
    """Return a SQLite database in the folder `home`, or the Postgres database that VESTAL_DATABASE_URL names,
    which must be empty.
    """
    url = os.environ.get("VESTAL_DATABASE_URL")
    return PostgresDatabase(url) if url else SqliteDatabase(home / "orchestrator.db")
