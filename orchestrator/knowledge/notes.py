"""Write a note of a few sentences about each agent's knowledge, at night, with the agent's own model.

This takes one call of a model per agent, and only if the agent's knowledge has changed. Each note is stored
at once, so a night that is interrupted continues with the next agent and repeats no call.
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

MAX_DIGEST_CHARS = 4000  # together with the answer this fits a context of 2,048 tokens
MAX_NOTE_CHARS = 800
MAX_NOTE_TOKENS = 200
PROMPT = (
    "Below is a list of notes, a line each: where it stands, and how it begins. "
    "Say in at most four sentences what these notes are about and which questions they answer. "
    "Name their subjects; do not invent any."
)


@dataclass
class NotesReport:
    """The agents whose note was written, whose note was still current, and who have no new note (with the
    reason).
    """

    written: list[str] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)


class NoteStore:
    """The notes in the database: at most one for each agent, which a model wrote as a summary of the agent's
    knowledge. Its methods block.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def all(self) -> dict[str, dict[str, object]]:
        """Return each agent's note: its text, the model that wrote it, and the time `made_at` in seconds
        since the epoch.
        """
        with self._database.connect() as db:
            rows = db.execute("SELECT agent, text, model, made_at FROM notes ORDER BY agent")
            return {row["agent"]: {key: row[key] for key in ("text", "model", "made_at")} for row in rows}

    def is_current(self, agent: str, digest_sha: str) -> bool:
        """Return True if the agent's stored note was written from the same input. `digest_sha` is the SHA-256
        (hex) of that input: the model's name, the prompt, and the digest of the agent's files.
        """
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

    def delete_others(self, agents: Iterable[str]) -> None:
        """Delete the notes of all agents that are not in `agents`."""
        with self._database.connect() as db:
            kept = list(agents)
            others = f" WHERE agent NOT IN ({', '.join('?' * len(kept))})" if kept else ""
            db.execute(f"DELETE FROM notes{others}", kept)


class NoteWriter:
    """Writes a note, which is a summary in a few sentences, of the knowledge of each agent whose files have
    changed.

    `store` has the texts, and `notes` keeps the notes. `client` sends the requests to the models: to the
    agent's own model, or to `chat_model` for a knowledge folder without a configured agent.
    """

    def __init__(self, store: KnowledgeStore, notes: NoteStore, client: Writer, chat_model: str) -> None:
        self._store = store
        self._notes = notes
        self._client = client
        self._chat_model = chat_model

    async def write_notes(self, folders: Collection[str], agents: Mapping[str, Agent]) -> NotesReport:
        """Write a note about each knowledge folder that has changed, and delete the notes of agents without
        knowledge. Return which notes were written, unchanged or skipped.

        `folders` has the names of the folders, which are those of their agents. If a backend fails, only the
        note that it was to write is skipped.
        """
        report = NotesReport()
        for name in folders:
            model = agents[name].model if name in agents else self._chat_model
            try:
                await self._write_note(name, model, report)
            except BackendError as error:
                report.skipped.append(f"{name}: {error.message}")
        await asyncio.to_thread(self._notes.delete_others, await asyncio.to_thread(self._store.agents))
        return report

    async def _write_note(self, name: str, model: str, report: NotesReport) -> None:
        outline = await asyncio.to_thread(self._store.outline, name)
        if not outline:
            report.skipped.append(f"{name}: nothing is known yet")
            return
        text = digest(outline, MAX_DIGEST_CHARS)
        sha = hashlib.sha256(f"{model}\n{PROMPT}\n{text}".encode()).hexdigest()
        if await asyncio.to_thread(self._notes.is_current, name, sha):
            report.unchanged.append(name)
            return
        messages = [{"role": "user", "content": f"{PROMPT}\n\n{text}"}]
        note = await self._client.chat(model, messages, MAX_NOTE_TOKENS)
        await asyncio.to_thread(self._notes.keep, name, note[:MAX_NOTE_CHARS], sha, model)
        report.written.append(name)
