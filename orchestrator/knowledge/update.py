"""Bring the stored knowledge up to date with the folders: embed changed files, and delete the chunks of
vanished files.

Every batch of vectors is stored at once, so a run that is killed, or whose backend fails, loses at most one
batch, and the next run continues from there. A file that cannot be read is skipped and named; the others are
processed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path

from orchestrator.errors import BackendError, DatabaseFailed
from orchestrator.events import emit
from orchestrator.knowledge.embedding import EmbeddingRun, Stopped
from orchestrator.knowledge.folders import files
from orchestrator.knowledge.folders.chunks import Chunk, chunks_of
from orchestrator.knowledge.llm_interfaces import Embedder
from orchestrator.knowledge.scan import scan
from orchestrator.knowledge.store import KnowledgeStore, Known
from orchestrator.knowledge.vectors import VectorCache
from orchestrator.storage.database import entered

MAX_NAMED = 20
PROBE_TEXT = "hello"


@dataclass
class UpdateReport:
    """What an update of the stored knowledge did.

    `files` counts the text files in the folders, `changed` those that were stored or stored again, and
    `deleted` the stored files that were deleted. `embedded` counts the passages (chunks) for which a vector
    was computed. `skipped` has a line for each file or folder that was not read, and `notes` a line for each
    file that was read or embedded only in part, with the reason. `stopped` says why the update ended early;
    it is "" if it did not.
    """

    files: int = 0
    changed: int = 0
    deleted: int = 0
    embedded: int = 0
    skipped: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    stopped: str = ""

    def as_json(self) -> dict[str, object]:
        named = {"skipped": self.skipped[:MAX_NAMED], "notes": self.notes[:MAX_NAMED]}
        return {**vars(self), **named, "skipped_files": len(self.skipped)}

    def sentence(self) -> str:
        """Return the report in one sentence."""
        done = f"{self.files} files, {self.changed} changed, {self.deleted} deleted"
        done += f", {self.embedded} chunks embedded"
        if self.skipped:
            done += f", {len(self.skipped)} skipped"
        return f"{done}; stopped: {self.stopped}" if self.stopped else done


# A file whose chunks wait for their vectors: path, file facts, chunks.
Pending = tuple[str, Known, list[Chunk]]


class KnowledgeUpdater:
    """Brings the stored chunks and vectors up to date with the files in the agents' knowledge folders. Among
    all processes that share `lock`, one update runs at a time: the context manager that `lock` returns yields
    False if another process has the lock.

    `client` embeds the texts with `model`, at most `batch` texts in a request. `memory_fraction` returns the
    used share of the container's memory limit: from 0.8 on, the batches are smaller, and from 0.9 on, the
    update stops. `shared` means that other machines use the same database. The knowledge of an agent without
    a folder is then kept, because the folder may exist on another machine.
    """

    def __init__(
        self,
        store: KnowledgeStore,
        vectors: VectorCache,
        client: Embedder,
        model: str,
        batch: int,
        lock: Callable[[], AbstractContextManager[bool]],
        memory_fraction: Callable[[], float],
        shared: bool = False,
    ) -> None:
        self._shared = shared
        self._store = store
        self._client = client
        self._embedding = EmbeddingRun(vectors, client, model, batch, memory_fraction)
        self._model = model
        self._batch = batch
        self._lock = lock
        self._logged: list[str] = []
        self._refused: dict[str, dict[str, str]] = {}  # agent → file → why a passage has no vector

    async def update_all_agents_knowledge(
        self, folders: dict[str, Path], full: bool = False, unreadable: str = ""
    ) -> UpdateReport:
        """Examine every folder, embed what has changed, and delete what has vanished. With `full`, read every
        file, and embed again the texts whose vectors have an outdated size. If `folders` may be incomplete,
        `unreadable` says why, and the knowledge of agents without a folder is kept.

        An update that cannot continue does not raise: the report's `stopped` says why.
        """
        report = UpdateReport()
        self._embedding.begin()
        async with entered(self._lock()) as got:
            if not got:
                report.stopped = "another process is updating the knowledge"
                return report
            try:
                if full:
                    await self._drop_outdated_vectors(report)
                for agent, folder in folders.items():
                    await self._update_agent(agent, folder, full, report)
                if unreadable:
                    report.skipped.append(unreadable)
                else:
                    await self._forget_gone_agents(folders, report)
                report.notes += await self._still_refused()
                if full:
                    await self._note_mixed_sizes(report)
            except (Stopped, BackendError) as error:
                report.stopped = str(error)
            except DatabaseFailed as error:
                report.stopped = f"{error.message} What was stored before remains"
        self._log_skipped(report)
        return report

    async def _drop_outdated_vectors(self, report: UpdateReport) -> None:
        """Embed one text, and delete the stored vectors of another size than its vector has, so that their
        texts are embedded again. The size changes if another model gets the name of the embedding model, as
        by `ollama pull`. No search can compare vectors of different sizes.
        """
        if not await asyncio.to_thread(self._store.vector_sizes, self._model):
            return
        [vector] = await self._client.embed(self._model, [PROBE_TEXT])
        if dropped := await asyncio.to_thread(
            self._store.drop_vectors_of_other_sizes, self._model, len(vector)
        ):
            report.notes.append(
                f"{self._model} gives vectors of {len(vector)} dimensions now: {dropped} of another size were"
                " deleted, and their texts are embedded again"
            )

    async def _note_mixed_sizes(self, report: UpdateReport) -> None:
        """Add a note to the report if the vectors of the embedding model have several sizes, so that a search
        by meaning misses those of the less frequent sizes.
        """
        sizes = sorted(await asyncio.to_thread(self._store.vector_sizes, self._model))
        if len(sizes) > 1:
            report.notes.append(
                f"{self._model} gives vectors of {' and '.join(map(str, sizes))} dimensions: its servers have"
                " different models under this name; give them the same one"
            )

    def _log_skipped(self, report: UpdateReport) -> None:
        """Log each skipped file once, and not again in every cycle."""
        named = [*report.skipped[:MAX_NAMED], *report.notes[:MAX_NAMED]]
        for what in named:
            if what not in self._logged:
                emit("knowledge_file_skipped" if what in report.skipped else "knowledge_file_noted", what)
        self._logged = named

    async def _update_agent(self, agent: str, folder: Path, full: bool, report: UpdateReport) -> None:
        known = await asyncio.to_thread(self._store.known, agent)
        if full:  # treat a file that lacks a vector as new
            for path in await asyncio.to_thread(self._store.files_lacking_vectors, agent, self._model):
                known[path] = replace(known[path], sha256="")
        found = await asyncio.to_thread(scan, folder, known, self._model, full)
        report.files += found.files
        report.skipped += [f"{agent}/{skipped.path}: {skipped.why}" for skipped in found.skipped]
        if found.touched:
            await asyncio.to_thread(self._store.touch_files, agent, found.touched)
        await self._forget(agent, found.gone, report)
        await self._update_files(agent, found.changed, report)

    async def _update_files(
        self, agent: str, changed: list[files.KnowledgeFile], report: UpdateReport
    ) -> None:
        """Embed the `changed` files in the knowledge folder of `agent`, and store them; small files share a
        batch. Add to `report` how many files were stored and how many passages were embedded, and a line for
        each file that was skipped or is not entirely UTF-8. If the reason for skipping a file is not
        temporary, delete the file's earlier knowledge.

        Raises Stopped if memory is too full for another batch, BackendError if the backend fails, and
        DatabaseFailed if the database fails. The files of earlier batches are then stored already.
        """
        pending: list[Pending] = []
        texts = 0
        for found in changed:
            content = await asyncio.to_thread(files.read, found)
            if isinstance(content, files.Skipped):
                report.skipped.append(f"{agent}/{content.path}: {content.why}")
                if not content.temporary:
                    await self._forget(agent, [found.path], report)
                continue
            if content.broken:
                report.notes.append(f"{agent}/{found.path}: not UTF-8 in {content.broken} place(s)")
            known = Known(content.sha256, found.size, found.mtime_ns, self._model)
            chunks = await asyncio.to_thread(chunks_of, content.text, files.is_markdown(found.path))
            pending.append((found.path, known, chunks))
            texts += len(chunks)
            if texts >= self._batch:
                await self._keep(agent, pending, report)
                pending, texts = [], 0
        await self._keep(agent, pending, report)

    async def _keep(self, agent: str, pending: list[Pending], report: UpdateReport) -> None:
        texts = [chunk.embedded_text for _, _, chunks in pending for chunk in chunks]
        embedded = await self._embedding.embed(texts)
        report.embedded += embedded.count
        if pending:
            self._note_refused(agent, pending, embedded.refused)
            await asyncio.to_thread(self._store.replace_files, agent, pending)
        report.changed += len(pending)

    def _note_refused(self, agent: str, pending: list[Pending], refused: dict[str, str]) -> None:
        """Remember, for the reports, each of the agent's files in `pending` that has passages which the
        backend refused to embed, and forget the files in `pending` that have none. `refused` maps the text of
        each refused passage to the backend's reason.

        A file with a refused passage is embedded again when it changes, and by each nightly run.
        """
        known = self._refused.setdefault(agent, {})
        for path, _, chunks in pending:
            whys = [refused[chunk.embedded_text] for chunk in chunks if chunk.embedded_text in refused]
            known.pop(path, None)
            if whys:
                known[path] = f"{len(whys)} passage(s) found by their words only: {whys[0]}"

    async def _still_refused(self) -> list[str]:
        """Return, for the update's report, a line about each file in which a passage that the backend refused
        to embed still has no vector. Forget the files that no longer have such a passage.
        """
        for agent, paths in self._refused.items():
            lacking = (
                await asyncio.to_thread(self._store.files_lacking_vectors, agent, self._model)
                if paths
                else []
            )
            self._refused[agent] = {path: why for path, why in paths.items() if path in lacking}
        return [
            f"{agent}/{path}: {why}" for agent, paths in self._refused.items() for path, why in paths.items()
        ]

    async def _forget(self, agent: str, paths: list[str], report: UpdateReport) -> None:
        if paths:
            await asyncio.to_thread(self._store.forget_files, agent, paths)
            report.deleted += len(paths)

    async def _forget_gone_agents(self, folders: dict[str, Path], report: UpdateReport) -> None:
        """Delete the stored knowledge of each agent that has no folder in `folders`, and count its files as
        deleted in `report`. Do nothing if other machines use the same database, because the folder may exist
        on one of them.
        """
        if self._shared:
            return
        for agent in await asyncio.to_thread(self._store.agents) - set(folders):
            await self._forget(agent, list(await asyncio.to_thread(self._store.known, agent)), report)
