"""The nightly service: long knowledge work at the configured hour, or as soon as possible if that was missed.

The nightly run reads every file again (a file's date can be wrong), embeds what lacks a vector, writes a note
about each agent's knowledge, deletes unused vectors and old tasks, and compacts the database. At other times
the service only touches its heartbeat file.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from datetime import datetime

from orchestrator.config import Config
from orchestrator.container import Container, open_container
from orchestrator.cycles import schedule
from orchestrator.cycles.plan import CycleFacts, CyclePhase, plan
from orchestrator.errors import DatabaseFailed
from orchestrator.events import emit
from orchestrator.processes import common
from orchestrator.processes.healthcheck import HEARTBEAT_NAME
from orchestrator.storage.database import entered
from orchestrator.tasks.retention import drop_old_tasks

CHECK_EVERY_S = 15.0
RETRY_S = 600.0
UNUSED_VECTORS_KEPT_S = 30 * 86400.0
DONE_KEY = "nightly_done_at"


def serve(config: Config) -> int:
    """Run the nightly service until SIGTERM or SIGINT, and return the exit code."""
    common.begin("nightly")
    asyncio.run(_serve(config))
    return 0


async def _serve(config: Config) -> None:
    async with open_container(config) as container:
        emit("nightly_started", next_run=str(schedule.next_slot(datetime.now(), config.nightly_hour)))
        path = config.home / HEARTBEAT_NAME
        failed = await common.until_stopped(_run_each_night(container), common.heartbeat(path))
        if failed is not None:
            raise failed
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
        emit("nightly_stopped")


async def _run_each_night(container: Container) -> None:
    last_failure = ""
    while True:
        try:
            await asyncio.sleep(await _run_if_due(container))
            last_failure = ""
        except DatabaseFailed as error:  # wait for the database, and log each failure only once
            if error.message != last_failure:
                emit("nightly_waits", error.message)
            last_failure = error.message
            await asyncio.sleep(CHECK_EVERY_S)


async def _run_if_due(container: Container) -> float:
    """Run the nightly work if it is due and no other process runs it. Return the seconds until the next
    check.
    """
    async with entered(container.database.lock("nightly")) as alone:
        if not alone:
            return CHECK_EVERY_S
        done_at = await asyncio.to_thread(container.database.meta, DONE_KEY)
        if done_at is None:  # the very first start has missed no run
            await asyncio.to_thread(container.database.set_meta, DONE_KEY, str(time.time()))
            return CHECK_EVERY_S
        if not schedule.due(
            datetime.fromtimestamp(float(done_at)), datetime.now(), container.config.nightly_hour
        ):
            return CHECK_EVERY_S
        try:
            done = await run_once(container)
        except Exception as error:
            emit("nightly_run_failed", repr(error))
            done = False
        if not done:
            return RETRY_S
        await asyncio.to_thread(container.database.set_meta, DONE_KEY, str(time.time()))
        return CHECK_EVERY_S


async def run_once(container: Container) -> bool:
    """Run the nightly work once. Return False if it could not be finished and has to be tried again."""
    old = await asyncio.to_thread(drop_old_tasks, container.task_database, time.time())
    backends = await container.board.check_llm_services_health()
    backends, webhook = await container.report_to_host(backends)
    found = await asyncio.to_thread(container.folders)
    folders = found.by_agent
    facts = CycleFacts(
        backends,
        container.config.chat_model,
        container.config.embed_model,
        knowledge_folders=len(folders),
        knowledge_unreadable=found.unreadable,
    )
    knowledge = next(planned for planned in plan(facts) if planned.phase is CyclePhase.KNOWLEDGE)
    if not knowledge.run and (folders or found.unreadable):
        emit("nightly_skipped", knowledge.why, webhook=webhook, retry_in_s=RETRY_S)
        return False
    emit("nightly_run_started", folders=sorted(folders))
    report = await container.updater.update_all_agents_knowledge(
        folders, full=True, unreadable=found.unreadable
    )
    notes = await container.note_writer.write_notes(folders, container.agents)
    dropped = await asyncio.to_thread(container.vectors.drop_unused, UNUSED_VECTORS_KEPT_S)
    freed_bytes = await asyncio.to_thread(container.database.compact)
    emit(
        "nightly_run_finished",
        report.sentence(),
        notes=vars(notes),
        dropped_tasks=old,
        dropped_vectors=dropped,
        freed_bytes=freed_bytes,
    )
    return not report.stopped
