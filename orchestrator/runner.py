"""Runs the cycles that `cycle` plans, and the monitor between them."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from . import memory_guard
from .cycle import Backend, Facts, Outcome, Phase, Planned, down, plan
from .events import emit
from .parts import Parts

UNHEALTHY_CHECK_S = 15.0  # while something is down, its return is looked for at least this often


class Runner:
    """One cycle at a time: on its interval, and at once when a backend has come back."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._wake = asyncio.Event()
        self._trigger = "start"
        self.cycles = 0
        self.last: dict[str, Any] | None = None
        self.webhook_sentence = ""

    async def run_cycles(self) -> None:
        """Cycle until cancelled. One that fails is told, and the next comes all the same."""
        while True:
            self._wake.clear()
            trigger, self._trigger = self._trigger, "interval"
            try:
                await self.cycle(trigger)
            except Exception as error:
                emit("cycle_failed", repr(error), trigger=trigger)
            try:
                await asyncio.wait_for(self._wake.wait(), self._parts.config.cycle_interval_s)
            except TimeoutError:
                continue

    async def run_monitor(self) -> None:
        """Between cycles: check the backends, post the webhook, wake the cycle when one has come back."""
        while True:
            await asyncio.sleep(self._monitor_pause_s())
            before = self._parts.board.backends
            try:
                backends = await self._parts.board.check_llm_services_health()
                self.webhook_sentence = await self._parts.webhook.tell(backends)
            except Exception as error:
                emit("monitor_failed", repr(error))
                continue
            self._note_changes(before, backends)

    def _monitor_pause_s(self) -> float:
        interval_s = self._parts.config.monitor_interval_s
        if all(b.healthy for b in self._parts.board.backends if b.used):
            return interval_s
        return min(interval_s, UNHEALTHY_CHECK_S)

    def _note_changes(self, before: tuple[Backend, ...], after: tuple[Backend, ...]) -> None:
        for old, new in zip(before, after, strict=True):
            if old.healthy != new.healthy:
                emit("backend_returned" if new.healthy else "backend_lost", new.detail, backend=new.name)
            if new.used and new.healthy and (not old.healthy or old.models != new.models):
                self._trigger = (
                    f"{new.name} is healthy again" if not old.healthy else f"{new.name} has other models"
                )
                self._wake.set()

    async def cycle(self, trigger: str) -> dict[str, Any]:
        """One cycle: health, then what the plan says, then the record of it."""
        started, parts = time.time(), self._parts
        backends = await parts.board.check_llm_services_health()
        self.webhook_sentence = await parts.webhook.tell(backends)
        facts = await self._facts(backends)
        outcomes = [await self._do(planned, facts) for planned in plan(facts)]
        record = {
            "backends": {b.name: _backend_json(b) for b in facts.backends},
            "phases": [outcome.as_json() for outcome in outcomes],
            "notices": parts.take_notices(),
        }
        finished = time.time()
        cycle_id = await asyncio.to_thread(parts.cycles.add, started, finished, trigger, record)
        self.cycles += 1
        self.last = {
            "id": cycle_id,
            "finished_at": finished,
            "duration_s": round(finished - started, 3),
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

    async def _facts(self, backends: tuple[Backend, ...]) -> Facts:
        config = self._parts.config
        reading = memory_guard.read()
        return Facts(
            backends=backends,
            chat_model=config.chat_model,
            embed_model=config.embed_model,
            tasks_waiting=await self._parts.tasks.waiting(),
            knowledge_folders=len(await asyncio.to_thread(self._parts.folders)),
            memory_fraction=reading.fraction if reading else 0.0,
        )

    async def _do(self, planned: Planned, facts: Facts) -> Outcome:
        if not planned.run:
            return Outcome(planned.phase, "skipped", planned.why)
        try:
            return await self._act(planned, facts)
        except Exception as error:
            emit("phase_failed", repr(error), phase=str(planned.phase))
            return Outcome(planned.phase, "failed", f"{type(error).__name__}: {error}")

    async def _act(self, planned: Planned, facts: Facts) -> Outcome:
        if planned.phase is Phase.HEALTH:
            lost = down(facts)
            figures: dict[str, object] = {"webhook": self.webhook_sentence}
            return Outcome(
                planned.phase, "done", f"{', '.join(lost)} down" if lost else "all healthy", figures
            )
        if planned.phase is Phase.KNOWLEDGE:
            report = await self._parts.updater.update_all_agents_knowledge(self._parts.folders())
            return Outcome(planned.phase, "done", report.sentence(), report.as_json())
        return Outcome(planned.phase, "done", planned.why)


def _backend_json(backend: Backend) -> dict[str, object]:
    return {
        "used": backend.used,
        "healthy": backend.healthy,
        "models": sorted(backend.models),
        "detail": backend.detail,
    }
