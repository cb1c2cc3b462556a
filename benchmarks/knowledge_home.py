"""The orchestrator's knowledge in a folder of its own, with any embedder, for its benchmarks."""

from __future__ import annotations

from pathlib import Path

from orchestrator.database import Database
from orchestrator.knowledge.index import CurrentIndex
from orchestrator.knowledge.models import Embedder
from orchestrator.knowledge.search import KnowledgeSearch
from orchestrator.knowledge.store import KnowledgeStore
from orchestrator.knowledge.update import KnowledgeUpdater
from orchestrator.knowledge.vectors import VectorCache

MODEL = "all-minilm"


class KnowledgeHome:
    def __init__(self, home: Path, embedder: Embedder) -> None:
        self.database = Database(home / "orchestrator.db")
        self.database.prepare()
        self.store = KnowledgeStore(self.database)
        self.vectors = VectorCache(self.database)
        self.index = CurrentIndex(self.database, self.store, MODEL)
        self.search = KnowledgeSearch(self.store, self.vectors, self.index, embedder, MODEL)
        self.updater = KnowledgeUpdater(
            self.store, self.vectors, embedder, MODEL, 32, home / "knowledge.lock", lambda: 0.0
        )
