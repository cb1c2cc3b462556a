"""Create every object of a process and connect them, in one place (the composition root)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import aiohttp

from orchestrator import memory_guard
from orchestrator.agents import agents
from orchestrator.agents.agents import Agent
from orchestrator.config import Config
from orchestrator.cycles.store import CycleStore
from orchestrator.events import emit
from orchestrator.knowledge.folders import files
from orchestrator.knowledge.notes import NoteStore, NoteWriter
from orchestrator.knowledge.search.ranker import ranker_of
from orchestrator.knowledge.search.reranking import Reranking
from orchestrator.knowledge.search.search import KnowledgeSearch
from orchestrator.knowledge.store import KnowledgeStore
from orchestrator.knowledge.update import KnowledgeUpdater
from orchestrator.knowledge.vectors import VectorCache
from orchestrator.llm import hosts
from orchestrator.llm.backend import Backend
from orchestrator.llm.client import LlmClient
from orchestrator.llm.health import HealthBoard
from orchestrator.recovery_webhook.webhook import RecoveryWebhook
from orchestrator.storage.database import Database
from orchestrator.storage.open_database import open_database
from orchestrator.storage.postgres import PostgresDatabase
from orchestrator.storage.postgres_connection import PatientConnect
from orchestrator.tasks.database import PostgresTasks, SqliteTasks, TaskDatabase
from orchestrator.tasks.step_gate import StepGate
from orchestrator.tasks.steps import Steps
from orchestrator.tasks.task_queue import TaskQueue
from orchestrator.workers.membership import Membership
from vestal.tracing import open_tracer

if TYPE_CHECKING:
    from vestal.tracing.tracer import Tracer


@dataclass(frozen=True)
class Container:
    """The connected objects that one process uses: the service, the nightly service or a worker.
    `open_container` creates them.

    `board` has the health of the backends. `cycles` has the records of the orchestrator's cycles, its
    periodic rounds of checks and work. DBOS stores the tasks in `task_database`; all other data are in
    `database`.
    """

    config: Config
    agents: dict[str, Agent]
    database: Database
    board: HealthBoard
    webhook: RecoveryWebhook
    knowledge: KnowledgeStore
    vectors: VectorCache
    updater: KnowledgeUpdater
    search: KnowledgeSearch
    notes: NoteStore
    note_writer: NoteWriter
    tasks: TaskQueue
    task_database: TaskDatabase
    membership: Membership | None  # only on Postgres, where several workers share the tasks
    cycles: CycleStore

    def folders(self) -> files.Folders:
        """Return the agents' knowledge folders: the folders in the configured `knowledge_dir`, and those in
        `knowledge_folders`, which may be anywhere. This blocks.
        """
        return files.folders(self.config.knowledge_dir, dict(self.config.knowledge_folders))

    async def report_to_host(self, backends: tuple[Backend, ...]) -> tuple[tuple[Backend, ...], str]:
        """Report to the host agent which backends are down, if a report is due.

        Return the backends with their updated state, and a sentence that says what was reported, or why
        nothing was.
        """
        sentence = await self.webhook.report(backends)
        return self.board.outage_reported(self.webhook.reported), sentence

    def take_notices(self) -> list[str]:
        """Return the notices since the last call, such as that a damaged database was moved aside, and clear
        them.
        """
        notices = [*self.database.notices, *self.tasks.notices]
        self.database.notices.clear()
        self.tasks.notices.clear()
        return notices


NAMED = {"User-Agent": "vestal-orchestrator"}
"""HTTP headers by which the MLX server names this client in its list of requests in flight."""


@asynccontextmanager
async def open_container(config: Config) -> AsyncIterator[Container]:
    """Create the objects of this process, which share one HTTP session, and yield the `Container` that holds
    them. When the `async with` block ends, close the session and the tracer. If this process has joined the
    workers (`Membership.join`), also release the lock that reserves its worker name for it.

    Raises ConfigError if a setting, the agents file or the home folder cannot be used, and DatabaseFailed if
    Postgres does not answer.
    """
    all_agents = agents.load(config.agents_file, config.chat_model)
    database = await asyncio.to_thread(open_database, config)
    membership = Membership(database, config.worker_id) if isinstance(database, PostgresDatabase) else None
    task_database = _tasks_of(config, membership)
    tracer = open_tracer("vestal-orchestrator", lambda sentence: emit("tracing_failed", sentence))
    async with aiohttp.ClientSession(headers=NAMED) as session, _closing(membership, tracer):
        board = HealthBoard(session, hosts.named(config.mlx_urls, config.ollama_urls), config.llm_api_key)
        client = LlmClient(session, board, config.max_concurrent)
        store = KnowledgeStore(database)
        vectors = VectorCache(database)
        notes = NoteStore(database)
        ranker = ranker_of(database, store, config.embed_model)
        reranking = Reranking(client, config.rerank_model) if config.rerank_model else None
        search = KnowledgeSearch(store, vectors, ranker, client, config.embed_model, reranking)
        steps = Steps(
            all_agents,
            client,
            board,
            search,
            config.embed_model,
            config.max_answer_tokens,
            config.context_tokens,
            notes.all,
            StepGate(config.max_concurrent, _memory_fraction),
        )
        yield Container(
            config=config,
            agents=all_agents,
            database=database,
            board=board,
            webhook=RecoveryWebhook(session, config.webhook_url, config.token, config.monitor_interval_s),
            knowledge=store,
            vectors=vectors,
            updater=KnowledgeUpdater(
                store,
                vectors,
                client,
                config.embed_model,
                config.embed_batch,
                lambda: database.lock("knowledge"),
                _memory_fraction,
                shared=membership is not None,
            ),
            search=search,
            notes=notes,
            note_writer=NoteWriter(store, notes, client, config.chat_model),
            tasks=TaskQueue(task_database, steps, config.max_concurrent, config.max_unfinished_tasks, tracer),
            task_database=task_database,
            membership=membership,
            cycles=CycleStore(database),
        )


@asynccontextmanager
async def _closing(membership: Membership | None, tracer: Tracer | None) -> AsyncIterator[None]:
    try:
        yield
    finally:
        if tracer is not None:
            await asyncio.to_thread(tracer.close)
        if membership is not None:
            await asyncio.to_thread(membership.close)


def _tasks_of(config: Config, membership: Membership | None) -> TaskDatabase:
    if membership is None:
        return SqliteTasks(config.tasks_database)
    return PostgresTasks(PatientConnect(config.database_url), membership, config.tasks_at_once)


def _memory_fraction() -> float:
    reading = memory_guard.read()
    return reading.fraction if reading else 0.0
