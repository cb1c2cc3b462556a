"""The second service: the long knowledge work, at the configured hour, and after a missed one.

It reads every file anew (a file's time can lie), embeds what lacks a vector, writes a note on each agent's
knowledge, forgets vectors that nothing uses and old finished tasks, and compacts the database. By day it only
touches its heartbeat.
"""

from __future__ import annotations

import asyncio
import time
from datetime import datetime

from orchestrator.config import Config
from orchestrator.container import Container, assembled
from orchestrator.cycles import schedule
from orchestrator.cycles.plan import CyclePhase, Facts, plan
from orchestrator.errors import DatabaseFailed
from orchestrator.events import emit
from orchestrator.processes import common
from orchestrator.processes.healthcheck import HEARTBEAT_NAME
from orchestrator.storage.database import entered
from orchestrator.tasks.retention import drop_old_tasks

LOOK_EVERY_S = 15.0
RETRY_S = 600.0
UNUSED_VECTORS_KEPT_S = 30 * 86400.0
DONE_KEY = "nightly_done_at"


def serve(config: Config) -> int:
    """Run until SIGTERM or SIGINT."""
    common.begin("nightly")
    asyncio.run(_serve(config))
    return 0


async def _serve(config: Config) -> None:
    async with assembled(config) as parts:
        emit("nightly_started", next_run=str(schedule.next_slot(datetime.now(), config.nightly_hour)))
        path = config.home / HEARTBEAT_NAME
        path.touch()
        failed = await common.until_stopped(_nights(parts), common.heartbeat(path))
        if failed is not None:
            raise failed
        path.unlink(missing_ok=True)
        emit("nightly_stopped")


async def _nights(parts: Container) -> None:
    trouble = ""
    while True:
        try:
            await asyncio.sleep(await _look(parts))
            trouble = ""
        except DatabaseFailed as error:  # it is away: no reason to end, nor to say it four times a minute
            if error.message != trouble:
                emit("nightly_waits", error.message)
            trouble = error.message
            await asyncio.sleep(LOOK_EVERY_S)


async def _look(parts: Container) -> float:
    """Do the night's work if it is due and nobody else is at it; returns when to look again, in seconds."""
    async with entered(parts.database.lock("nightly")) as alone:
        if not alone:
            return LOOK_EVERY_S
        said = await asyncio.to_thread(parts.database.meta, DONE_KEY)
        if said is None:  # the first start ever has missed nothing
            await asyncio.to_thread(parts.database.set_meta, DONE_KEY, str(time.time()))
            return LOOK_EVERY_S
        if not schedule.due(datetime.fromtimestamp(float(said)), datetime.now(), parts.config.nightly_hour):
            return LOOK_EVERY_S
        try:
            done = await run_once(parts)
        except Exception as error:
            emit("nightly_run_failed", repr(error))
            done = False
        if not done:
            return RETRY_S
        await asyncio.to_thread(parts.database.set_meta, DONE_KEY, str(time.time()))
        return LOOK_EVERY_S


async def run_once(parts: Container) -> bool:
    """One night's work; False where it could not be finished and must be tried again."""
    old = await asyncio.to_thread(drop_old_tasks, parts.task_database, time.time())
    backends = await parts.board.check_llm_services_health()
    backends, webhook = await parts.tell_host(backends)
    folders = parts.folders()
    facts = Facts(backends, parts.config.chat_model, parts.config.embed_model, knowledge_folders=len(folders))
    knowledge = next(planned for planned in plan(facts) if planned.phase is CyclePhase.KNOWLEDGE)
    if not knowledge.run and folders:
        emit("nightly_skipped", knowledge.why, webhook=webhook, retry_in_s=RETRY_S)
        return False
    emit("nightly_run_started", folders=sorted(folders))
    report = await parts.updater.update_all_agents_knowledge(folders, full=True)
    notes = await parts.distiller.distil(folders, parts.agents)
    dropped = await asyncio.to_thread(parts.vectors.drop_unused, UNUSED_VECTORS_KEPT_S)
    freed_bytes = await asyncio.to_thread(parts.database.compact)
    emit(
        "nightly_run_finished",
        report.sentence(),
        notes=vars(notes),
        dropped_tasks=old,
        dropped_vectors=dropped,
        freed_bytes=freed_bytes,
    )
    return not report.stopped
