"""A home for the knowledge, and models that answer at once, by rule."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from orchestrator.errors import BackendUnavailable, RequestRejected
from orchestrator.knowledge.notes import NoteStore
from orchestrator.knowledge.search.postgres_ranker import PostgresRanker
from orchestrator.knowledge.search.ranker import Ranker
from orchestrator.knowledge.search.reranking import Reranking
from orchestrator.knowledge.search.search import KnowledgeSearch
from orchestrator.knowledge.search.sqlite_ranker import SqliteRanker
from orchestrator.knowledge.search.vector_index import CurrentIndex
from orchestrator.knowledge.store import KnowledgeStore
from orchestrator.knowledge.update import KnowledgeUpdater
from orchestrator.knowledge.vectors import VectorCache
from orchestrator.storage.database import Database
from orchestrator.storage.postgres import PostgresDatabase
from orchestrator.storage.sqlite import SqliteDatabase
from tests.services.real_postgres import RealPostgres

DIM = 1024
SAME = {"canine": "dog"}  # what the stand-in takes to mean the same


@dataclass
class Models:
    """Each word is a direction of its own; `down` says why it does not."""

    down: str = ""
    after: int = 10**9  # batches until it goes down by itself
    refuses: str = ""  # a text with these words
    batches: list[list[str]] = field(default_factory=list)
    chats: list[tuple[str, str]] = field(default_factory=list)
    ranked: list[list[str]] = field(default_factory=list)
    cannot_rank: str = ""  # why it does not score documents; "hangs": it never answers
    places: dict[str, int] = field(default_factory=dict)
    dim: int = DIM

    async def embed(self, model: str, texts: list[str]) -> list[list[float]]:
        if self.down or len(self.batches) >= self.after:
            raise BackendUnavailable(self.down or "gone")
        self.batches.append(texts)
        if self.refuses and any(self.refuses in text for text in texts):
            raise RequestRejected("mlx answers 400: no")
        return [self._vector(text) for text in texts]

    async def chat(self, model: str, messages: list[dict[str, str]], max_tokens: int) -> str:
        if self.down:
            raise BackendUnavailable(self.down)
        self.chats.append((model, messages[-1]["content"]))
        return f"note {len(self.chats)}"

    async def rerank(self, model: str, query: str, documents: list[str]) -> list[float]:
        """Prefer the documents that have the fewest words."""
        if self.cannot_rank == "hangs":
            await asyncio.Event().wait()
        if self.cannot_rank:
            raise BackendUnavailable(self.cannot_rank)
        self.ranked.append(documents)
        return [-float(len(text.split())) for text in documents]

    def _vector(self, text: str) -> list[float]:
        vector = [0.0] * self.dim
        for word in re.findall(r"\w+", text.lower()):
            vector[self.places.setdefault(SAME.get(word, word), len(self.places))] += 1.0
        length = sum(x * x for x in vector) ** 0.5 or 1.0
        return [x / length for x in vector]


class Knowledge:
    """The parts of knowledge around one database and one stand-in for the models."""

    def __init__(self, home: Path, database: Database, shared: bool = False) -> None:
        self.models = Models()
        self.now = 0.0
        self.memory = 0.0
        self.root = home / "folders"
        self.database = database
        self.store = KnowledgeStore(self.database)
        self.vectors = VectorCache(self.database)
        self.notes = NoteStore(self.database)
        self.ranker: Ranker = (
            SqliteRanker(database, CurrentIndex(database, self.store, "m", lambda: self.now))
            if isinstance(database, SqliteDatabase)
            else PostgresRanker(database, self.store, "m")
        )
        self.search = KnowledgeSearch(self.store, self.vectors, self.ranker, self.models, "m")
        self.updater = KnowledgeUpdater(
            self.store,
            self.vectors,
            self.models,
            "m",
            8,
            lambda: database.lock("knowledge"),
            lambda: self.memory,
            shared,
        )

    def reranked(self, wait_s: float = 5.0) -> KnowledgeSearch:
        """Return a search whose hits the stand-in ranks."""
        reranking = Reranking(self.models, "ranker", wait_s)
        return KnowledgeSearch(self.store, self.vectors, self.ranker, self.models, "m", reranking)

    def write(self, agent: str, **files: str) -> Path:
        folder = self.root / agent
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (folder / f"{name}.md").write_text(text)
        return folder

    def folders(self) -> dict[str, Path]:
        return {folder.name: folder for folder in sorted(self.root.iterdir())}


@pytest.fixture(params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """A new database of each kind: what the stores promise must hold on both."""
    if request.param == "sqlite":
        database: Database = SqliteDatabase(tmp_path / "orchestrator.db")
    else:
        server: RealPostgres = request.getfixturevalue("postgres")
        database = PostgresDatabase(server.new_database())
    database.prepare()
    yield database
    database.close()


@pytest.fixture
def knowledge(tmp_path: Path, database: Database) -> Knowledge:
    return Knowledge(tmp_path, database)
