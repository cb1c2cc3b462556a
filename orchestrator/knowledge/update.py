"""Brings what is kept into line with the folders: changed files only, by content hash; deleted ones leave.

Every batch of vectors is kept as soon as it is made, so a run that is killed, or whose backend dies, loses
one batch; the next run goes on from there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from .. import memory_guard
from ..database import locked
from ..errors import BackendError
from ..events import emit
from ..llm_client import LlmClient
from . import files
from .chunks import chunks_of
from .store import KnowledgeStore, Known


@dataclass
class Report:
    """What an update saw and did; `stopped` says why it ended early."""

    files: int = 0
    changed: int = 0
    deleted: int = 0
    embedded: int = 0
    skipped: list[str] = field(default_factory=list)
    stopped: str = ""

    def as_json(self) -> dict[str, object]:
        return {**vars(self), "skipped": self.skipped[:20], "skipped_files": len(self.skipped)}

    def sentence(self) -> str:
        done = f"{self.files} files, {self.changed} changed, {self.deleted} deleted"
        done += f", {self.embedded} chunks embedded"
        return f"{done}; stopped: {self.stopped}" if self.stopped else done


class _Stop(Exception):
    """The update cannot go on; its text says why."""


class KnowledgeUpdater:
    """One update at a time, in all processes that share the lock file."""

    def __init__(
        self,
        store: KnowledgeStore,
        client: LlmClient,
        model: str,
        batch: int,
        lock_path: Path,
        memory_fraction: Callable[[], float],
    ) -> None:
        self._store = store
        self._client = client
        self._model = model
        self._batch = batch
        self._lock_path = lock_path
        self._memory_fraction = memory_fraction

    async def update_all_agents_knowledge(self, folders: dict[str, Path], full: bool = False) -> Report:
        """Look at every folder and embed what changed; `full` reads every file."""
        report = Report()
        with locked(self._lock_path, blocking=False) as got:
            if not got:
                report.stopped = "the other service is updating the knowledge just now"
                return report
            try:
                for agent, folder in folders.items():
                    await self._update_agent(agent, folder, full, report)
                await self._forget_gone_agents(folders, report)
            except (_Stop, BackendError) as error:
                report.stopped = str(error)
        for skipped in report.skipped[:20]:
            emit("knowledge_file_skipped", skipped)
        return report

    async def _update_agent(self, agent: str, folder: Path, full: bool, report: Report) -> None:
        known = await asyncio.to_thread(self._store.known, agent)
        if full:  # a file that lacks a vector is as good as new
            for path in await asyncio.to_thread(self._store.unsound_files, agent, self._model):
                known[path] = replace(known[path], sha256="")
        listed = await asyncio.to_thread(lambda: list(files.walk(folder)))
        for entry in listed:
            if isinstance(entry, files.Skipped):
                report.skipped.append(f"{agent}/{entry.path}: {entry.why}")
                continue
            report.files += 1
            before = known.get(entry.path)
            if full or not _looks_same(before, entry, self._model):
                await self._update_file(agent, entry, before, report)
        gone = set(known) - {entry.path for entry in listed}
        if gone:
            await asyncio.to_thread(self._store.forget_files, agent, gone)
            report.deleted += len(gone)

    async def _update_file(
        self, agent: str, found: files.Found, before: Known | None, report: Report
    ) -> None:
        content = await asyncio.to_thread(files.read, found)
        if isinstance(content, files.Skipped):
            report.skipped.append(f"{agent}/{content.path}: {content.why}")
            return
        sha256, text = content
        now = Known(sha256, found.size, found.mtime_ns, self._model)
        if before is not None and replace(now, size=before.size, mtime_ns=before.mtime_ns) == before:
            if now != before:
                await asyncio.to_thread(self._store.touch_file, agent, found.path, now)
            return
        chunks = chunks_of(text, files.is_markdown(found.path))
        report.embedded += await self._embed([chunk.embedded_text for chunk in chunks])
        await asyncio.to_thread(self._store.replace_file, agent, found.path, now, chunks)
        report.changed += 1

    async def _embed(self, texts: list[str]) -> int:
        missing = await asyncio.to_thread(self._store.without_vector, texts, self._model)
        done = 0
        while done < len(missing):
            fraction = self._memory_fraction()
            size = memory_guard.batch_size(self._batch, fraction)
            if size == 0:
                raise _Stop(f"memory is at {fraction:.0%} of the limit")
            batch = missing[done : done + size]
            vectors = await self._client.embed(self._model, batch)
            await asyncio.to_thread(self._store.keep_vectors, self._model, batch, vectors)
            done += len(batch)
        return done

    async def _forget_gone_agents(self, folders: dict[str, Path], report: Report) -> None:
        for agent in await asyncio.to_thread(self._store.agents) - set(folders):
            gone = await asyncio.to_thread(self._store.known, agent)
            await asyncio.to_thread(self._store.forget_files, agent, gone)
            report.deleted += len(gone)


def _looks_same(before: Known | None, found: files.Found, model: str) -> bool:
    if before is None or before.model != model:
        return False
    return (before.size, before.mtime_ns) == (found.size, found.mtime_ns)
