"""Each agent's knowledge in a few sentences, written by its own model at night.

One call an agent, and only where its knowledge has changed. A note is kept as soon as it is made: a night
that is cut short goes on with the next agent, and pays for none twice.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from orchestrator.agents.agents import Agent
from orchestrator.errors import BackendError
from orchestrator.knowledge.digest import digest
from orchestrator.knowledge.llm_interfaces import Writer
from orchestrator.knowledge.store import KnowledgeStore
from orchestrator.storage.database import Database

MOST_DIGEST_CHARS = 4000  # with the answer it fits a context of 2,048 tokens
MOST_NOTE_CHARS = 800
MOST_NOTE_TOKENS = 200
ASKED = (
    "Below is a list of notes, a line each: where it stands, and how it begins. "
    "Say in at most four sentences what these notes are about and which questions they answer. "
    "Name their subjects; do not invent any."
)


@dataclass
class NotesReport:
    """Who got a new note, whose still holds, and who went without, and why."""

    written: list[str] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)


class NoteStore:
    def __init__(self, database: Database) -> None:
        self._database = database

    def all(self) -> dict[str, dict[str, object]]:
        """text, model and made_at by agent."""
        with self._database.connect() as db:
            rows = db.execute("SELECT agent, text, model, made_at FROM notes ORDER BY agent")
            return {row["agent"]: {key: row[key] for key in ("text", "model", "made_at")} for row in rows}

    def holds(self, agent: str, digest_sha: str) -> bool:
        with self._database.connect() as db:
            row = db.execute("SELECT digest_sha FROM notes WHERE agent = ?", (agent,)).fetchone()
        return row is not None and row["digest_sha"] == digest_sha

    def keep(self, agent: str, text: str, digest_sha: str, model: str) -> None:
        with self._database.connect() as db:
            db.execute(
                "INSERT INTO notes (agent, text, digest_sha, model, made_at) VALUES (?, ?, ?, ?, ?)"
                " ON CONFLICT (agent) DO UPDATE SET text = excluded.text, digest_sha = excluded.digest_sha,"
                " model = excluded.model, made_at = excluded.made_at",
                (agent, text, digest_sha, model, time.time()),
            )

    def forget_others(self, agents: Iterable[str]) -> None:
        """Forget the notes of all but these."""
        with self._database.connect() as db:
            kept = list(agents)
            others = f" WHERE agent NOT IN ({', '.join('?' * len(kept))})" if kept else ""
            db.execute(f"DELETE FROM notes{others}", kept)


class Distiller:
    def __init__(self, store: KnowledgeStore, notes: NoteStore, client: Writer, chat_model: str) -> None:
        self._store = store
        self._notes = notes
        self._client = client
        self._chat_model = chat_model

    async def distil(self, folders: Collection[str], agents: Mapping[str, Agent]) -> NotesReport:
        """Write the note of each folder whose knowledge changed; a failing backend costs that one alone."""
        report = NotesReport()
        for name in folders:
            model = agents[name].model if name in agents else self._chat_model
            try:
                await self._distil_one(name, model, report)
            except BackendError as error:
                report.skipped.append(f"{name}: {error.message}")
        await asyncio.to_thread(self._notes.forget_others, await asyncio.to_thread(self._store.agents))
        return report

    async def _distil_one(self, name: str, model: str, report: NotesReport) -> None:
        outline = await asyncio.to_thread(self._store.outline, name)
        if not outline:
            report.skipped.append(f"{name}: nothing is known yet")
            return
        text = digest(outline, MOST_DIGEST_CHARS)
        sha = hashlib.sha256(f"{model}\n{ASKED}\n{text}".encode()).hexdigest()
        if await asyncio.to_thread(self._notes.holds, name, sha):
            report.unchanged.append(name)
            return
        messages = [{"role": "user", "content": f"{ASKED}\n\n{text}"}]
        note = await self._client.chat(model, messages, MOST_NOTE_TOKENS)
        await asyncio.to_thread(self._notes.keep, name, note[:MOST_NOTE_CHARS], sha, model)
        report.written.append(name)
