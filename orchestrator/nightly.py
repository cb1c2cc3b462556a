"""The second service: the long knowledge work, at the configured hour, and after a missed one.

It reads every file anew (a file's time can lie), embeds what lacks a vector, writes a note on each agent's
knowledge, forgets vectors that nothing uses and old finished tasks, and compacts the database. By day it only
touches its heartbeat.
"""

from __future__ import annotations

import asyncio
import signal
import time
from datetime import datetime

from . import schedule
from .compaction import compact
from .config import Config
from .cycle import Facts, Phase, plan
from .events import adopt_logger, emit, set_component
from .healthcheck import HEARTBEAT_NAME
from .parts import Parts, assembled
from .retention import drop_old_tasks

HEARTBEAT_EVERY_S = 15.0
RETRY_S = 600.0
DONE_KEY = "nightly_done_at"


def serve(config: Config) -> int:
    """Run until SIGTERM or SIGINT."""
    set_component("nightly")
    for name in ("aiohttp", "asyncio"):
        adopt_logger(name)
    asyncio.run(_serve(config))
    return 0


async def _serve(config: Config) -> None:
    async with assembled(config) as parts:
        heartbeat = config.home / HEARTBEAT_NAME
        heartbeat.touch()
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        emit("nightly_started", next_run=str(schedule.next_slot(datetime.now(), config.nightly_hour)))
        works = asyncio.create_task(_nights(parts))
        beats = asyncio.create_task(_beat(config))
        ended = asyncio.create_task(stop.wait())
        await asyncio.wait([works, beats, ended], return_when=asyncio.FIRST_COMPLETED)
        for task in (works, beats):
            if task.done():
                task.result()
            task.cancel()
        heartbeat.unlink(missing_ok=True)
        emit("nightly_stopped")


async def _beat(config: Config) -> None:
    while True:
        (config.home / HEARTBEAT_NAME).touch()
        await asyncio.sleep(HEARTBEAT_EVERY_S)


async def _nights(parts: Parts) -> None:
    if parts.database.meta(DONE_KEY) is None:  # the first start ever has missed nothing
        parts.database.set_meta(DONE_KEY, str(time.time()))
    while True:
        since = datetime.fromtimestamp(float(parts.database.meta(DONE_KEY) or 0))
        if not schedule.due(since, datetime.now(), parts.config.nightly_hour):
            await asyncio.sleep(HEARTBEAT_EVERY_S)
            continue
        try:
            done = await run_once(parts)
        except Exception as error:
            emit("nightly_run_failed", repr(error))
            done = False
        if done:
            parts.database.set_meta(DONE_KEY, str(time.time()))
        else:
            await asyncio.sleep(RETRY_S)


async def run_once(parts: Parts) -> bool:
    """One night's work; False where it could not be finished and must be tried again."""
    old = await asyncio.to_thread(drop_old_tasks, parts.config.tasks_database, time.time())
    backends = await parts.board.check_llm_services_health()
    backends, webhook = await parts.tell_host(backends)
    folders = parts.folders()
    facts = Facts(backends, parts.config.chat_model, parts.config.embed_model, knowledge_folders=len(folders))
    knowledge = next(planned for planned in plan(facts) if planned.phase is Phase.KNOWLEDGE)
    if not knowledge.run and folders:
        emit("nightly_skipped", knowledge.why, webhook=webhook, retry_in_s=RETRY_S)
        return False
    emit("nightly_run_started", folders=sorted(folders))
    report = await parts.updater.update_all_agents_knowledge(folders, full=True)
    notes = await parts.distiller.distil(folders, parts.agents)
    compacted = await asyncio.to_thread(compact, parts.database, parts.vectors)
    emit("nightly_run_finished", report.sentence(), notes=vars(notes), dropped_tasks=old, **vars(compacted))
    return not report.stopped
