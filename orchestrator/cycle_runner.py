"""Run the orchestrator's cycles, its periodic rounds of checks and work, whose phases `cycles/plan.py` plans.
Run also the health monitor, independently of the cycles: it checks the backends and reports outages to the
host agent.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

from orchestrator import memory_guard
from orchestrator.container import Container
from orchestrator.cycles.plan import CycleFacts, CyclePhase, Outcome, Planned, health_sentence, plan
from orchestrator.errors import DatabaseFailed
from orchestrator.events import emit
from orchestrator.llm.backend import Backend
from orchestrator.llm.health import HealthBoard

WOKEN_GAP_S = 2.0  # an unstable backend must not start one cycle after the other
DATABASE_RETRY_S = 5.0
UNHEALTHY_CHECK_S = 15.0  # while a backend is down, it is checked at least this often


class CycleRunner:
    """Runs the orchestrator's cycles, one at a time: at each interval, and at once when a backend has
    recovered or its list of models has changed. A cycle checks the backends, embeds changed files of the
    agents' knowledge, and stores a record of what it did.
    """

    def __init__(self, container: Container) -> None:
        self._container = container
        self._wake = asyncio.Event()
        self._trigger = "start"
        self.cycles = 0
        self.last: dict[str, Any] | None = None
        self.database_failure = ""  # why the last cycle could not use the database, in a sentence
        container.board.on_change = self._note_change

    async def run_cycles(self) -> None:
        """Run cycles until cancelled. If a cycle fails, the failure is logged, and the next cycle runs
        nevertheless.
        """
        while True:
            interval_s = self._container.config.cycle_interval_s
            try:
                await self.cycle(self._trigger)
                self.database_failure = ""
            except DatabaseFailed as error:  # each failure is logged once, and tried again soon
                if error.message != self.database_failure:
                    emit("cycle_waits", error.message)
                self.database_failure, interval_s = error.message, min(interval_s, DATABASE_RETRY_S)
            except Exception as error:
                emit("cycle_failed", repr(error))
            gap_s = min(WOKEN_GAP_S, interval_s)
            await asyncio.sleep(gap_s)
            try:
                await asyncio.wait_for(self._wake.wait(), interval_s - gap_s)
            except TimeoutError:
                self._trigger = "interval"

    async def run_monitor(self) -> None:
        """Check the backends at each interval and at once after a failed call, and report to the host agent
        which are down.
        """
        while True:
            await self._container.board.wait_for_change(self._monitor_pause_s())
            try:
                backends = await self._container.board.check_llm_services_health()
                await self._container.report_to_host(backends)
            except Exception as error:
                emit("monitor_failed", repr(error))

    def _monitor_pause_s(self) -> float:
        interval_s = self._container.config.monitor_interval_s
        if all(b.healthy for b in self._container.board.backends if b.used):
            return interval_s
        return min(interval_s, UNHEALTHY_CHECK_S)

    def _note_change(self, before: Backend, after: Backend) -> None:
        """Log that a backend became healthy or was lost. If it has recovered or has other models, start a
        cycle at once.
        """
        if before.healthy != after.healthy:
            emit("backend_healthy" if after.healthy else "backend_lost", after.detail, backend=after.name)
        if after.healthy:
            self._trigger = f"{after.name} has other models" if before.healthy else f"{after.name} is healthy"
            self._wake.set()

    async def cycle(self, trigger: str) -> dict[str, Any]:
        """Run one cycle: check health, run the planned phases, store the cycle's record, and return it.
        `trigger` says in words why the cycle runs.
        """
        began, container = time.monotonic(), self._container
        backends = await container.board.check_llm_services_health()
        self._wake.clear()  # the cycle works with the result of this check
        self._trigger = "interval"
        backends, webhook = await container.report_to_host(backends)
        facts = await self._facts(backends)
        outcomes = [await self._do(planned, facts, webhook) for planned in plan(facts)]
        record = {
            "backends": {b.name: _backend_json(b, container.board) for b in facts.backends},
            "phases": [outcome.as_json() for outcome in outcomes],
            "notices": container.take_notices(),
        }
        await asyncio.to_thread(container.search.release_idle_memory)
        # The wall clock may have been set meanwhile: a cycle took -3600 s.
        duration_s, finished = time.monotonic() - began, time.time()
        started = finished - duration_s
        cycle_id = await asyncio.to_thread(container.cycles.add, started, finished, trigger, record)
        self.cycles += 1
        self.last = {
            "id": cycle_id,
            "finished_at": finished,
            "duration_s": round(duration_s, 3),
            **record,
        }
        emit(
            "cycle_finished",
            f"trigger: {trigger}",
            id=cycle_id,
            duration_s=self.last["duration_s"],
            phases={str(o.phase): f"{o.state}: {o.why}" for o in outcomes},
        )
        return self.last

    async def _facts(self, backends: tuple[Backend, ...]) -> CycleFacts:
        config = self._container.config
        reading = memory_guard.read()
        folders = await asyncio.to_thread(self._container.folders)
        return CycleFacts(
            backends=backends,
            chat_model=config.chat_model,
            embed_model=config.embed_model,
            tasks_waiting=await self._container.tasks.waiting(),
            knowledge_folders=len(folders.by_agent),
            knowledge_unreadable=folders.unreadable,
            memory_fraction=reading.fraction if reading else 0.0,
        )

    async def _do(self, planned: Planned, facts: CycleFacts, webhook: str) -> Outcome:
        """Run a phase, if it is planned to run, and return its outcome. If it raises, the outcome's state is
        `failed`. `webhook` is the sentence about this cycle's report to the host agent, for the cycle's
        record. It is passed because the monitor may make another report meanwhile.
        """
        if not planned.run:
            return Outcome(planned.phase, "skipped", planned.why)
        try:
            return await self._act(planned, facts, webhook)
        except Exception as error:
            emit("phase_failed", repr(error), phase=str(planned.phase))
            return Outcome(planned.phase, "failed", f"{type(error).__name__}: {error}")

    async def _act(self, planned: Planned, facts: CycleFacts, webhook: str) -> Outcome:
        if planned.phase is CyclePhase.HEALTH:
            figures: dict[str, object] = {"webhook": webhook}
            return Outcome(planned.phase, "done", health_sentence(facts), figures)
        if planned.phase is CyclePhase.KNOWLEDGE:
            folders = await asyncio.to_thread(self._container.folders)
            report = await self._container.updater.update_all_agents_knowledge(
                folders.by_agent, unreadable=folders.unreadable
            )
            return Outcome(planned.phase, "done", report.sentence(), report.as_json())
        return Outcome(planned.phase, "done", planned.why)


def _backend_json(backend: Backend, board: HealthBoard) -> dict[str, object]:
    return {
        "breaker": str(board.breakers[backend.name].state),
        "used": backend.used,
        "healthy": backend.healthy,
        "absent": backend.absent,
        "models": sorted(backend.models),
        "detail": backend.detail,
    }
