"""Run recovery passes one at a time. A request for a pass while another one runs joins the running pass."""

import asyncio
import logging
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from host_agent.journal import Journal
from host_agent.recovery import recovery_pass
from host_agent.recovery.facts import ControlledBy, Facts
from host_agent.recovery.recovery_pass import Checks, RecoveryPass, Remedies
from host_agent.recovery.report import Report
from host_agent.services import ORCHESTRATOR
from host_agent.services.docker.compose import WORKER
from host_agent.services.service_control import agent_stops
from vestal.platform.file_lock import LockHeld, hold_lock

log = logging.getLogger("vestal")

KEEP_REPORTS = 50
SETTLE_S = 90.0
JOIN_WINDOW_S = 0.5
MAX_LOOKS = 5
LOCK_TIMEOUT_S = 600.0  # `vestal up` may be building an image under the same lock


class LatestCheck:
    """Checks the machine with `checks`, and remembers in `fields` what the latest check covered.

    `fields` are three fields for the journal. `checked` lists what was checked: `memory`, and the names of
    the services. `absent` lists those of these services that do not exist on this machine, which can only be
    the worker. `checked_seq` is the number of the last journal entry before the check began. A fault with a
    higher number may have come too late for the check.
    """

    def __init__(self, checks: Checks, journal: Journal) -> None:
        self._checks, self._journal = checks, journal
        self.fields: dict[str, Any] = {}

    async def gather(self) -> Facts:
        """Check every service now, and return the facts."""
        checked_seq = self._journal.last_seq
        facts = await self._checks.gather()
        absent = _absent(facts)
        checked = {"memory", *(service.name for service in facts.services), *absent}
        self.fields = {"checked": sorted(checked), "absent": absent, "checked_seq": checked_seq}
        return facts


def _absent(facts: Facts) -> list[str]:
    """Return a list with WORKER if the check that found `facts` shows that there is no worker, because the
    Docker engine lists none, or because the orchestrator does not run in containers, as workers do. Otherwise
    return an empty list: there are workers, or it is unknown whether there are.
    """
    services = {service.name: service for service in facts.services}
    orchestrator = services.get(ORCHESTRATOR)
    if orchestrator is None or WORKER in services:
        return []
    in_containers = orchestrator.controlled_by is ControlledBy.DOCKER
    return [WORKER] if facts.docker_answers or not in_containers else []


class Passes:
    """Runs recovery passes one at a time, and keeps the reports of the newest ones. A recovery pass checks
    every service, applies remedies, and waits at most `settle_s` seconds for the services to recover.

    Callers that request a pass while one runs join it. After each round of checks, the pass waits
    `join_window_s` seconds for such callers, and makes another round for them. During a pass, the lock on
    `lock_file` is held, which other processes of Vestal, such as `vestal up`, use too. A scheduled pass that
    finds nothing is recorded in the journal only while `records_all` returns True.
    """

    def __init__(
        self,
        checks: Checks,
        remedies: Remedies,
        journal: Journal,
        lock_file: Path,
        *,
        settle_s: float = SETTLE_S,
        join_window_s: float = JOIN_WINDOW_S,
        records_all: Callable[[], bool] = lambda: False,
    ) -> None:
        self._checks, self._remedies, self._journal = checks, remedies, journal
        self._lock_file, self._settle_s, self._join_window_s = lock_file, settle_s, join_window_s
        self._records_all = records_all
        self._joined = asyncio.Event()
        self._reports: OrderedDict[str, Report] = OrderedDict()
        self._running: Report | None = None
        self._task: asyncio.Task[None] | None = None
        self._closed = False
        self.count = 0

    @property
    def is_closed(self) -> bool:
        """Return whether `close` was called, after which every request is refused."""
        return self._closed

    @property
    def running(self) -> Report | None:
        """Return the report of the running pass, or None."""
        return self._running

    @property
    def last(self) -> Report | None:
        """Return the report of the pass that ended last, or None."""
        return next((r for r in reversed(self._reports.values()) if r.state == "done"), None)

    def report(self, run_id: str) -> Report | None:
        """Return the report of a pass, or None if it is unknown or no longer stored."""
        return self._reports.get(run_id)

    def request(self, reason: str) -> tuple[Report, bool]:
        """Join the running pass, or start one. Return the pass's report, and True if this call started the
        pass. Raises HttpError with status 503 after `close`.
        """
        if self._closed:
            raise agent_stops()
        if self._running is not None:
            self._joined.set()
            return self._running, False
        report = Report(uuid.uuid4().hex[:12], reason, time.time())
        self._running = self._reports[report.run_id] = report
        while len(self._reports) > KEEP_REPORTS:
            self._reports.popitem(last=False)
        self._task = asyncio.create_task(self._run(report), name="recovery pass")
        return report, True

    async def wait(self) -> None:
        """Wait until the pass that was started last has ended."""
        if self._task is not None:
            await asyncio.wait([self._task])

    async def close(self) -> None:
        """Refuse further requests, cancel the running pass, and wait until it has ended."""
        self._closed = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def dry_run(self) -> Report:
        """Return the report of what a pass would do now. Nothing is done."""
        return await recovery_pass.dry_run(self._checks)

    async def _run(self, report: Report) -> None:
        """Run a recovery pass, write its results to `report`, and record them in the journal. A scheduled
        pass that found nothing is recorded only if `records_all`, a function that the constructor was given,
        returns True.

        The pass holds the lock file that other processes of Vestal use too. If another process holds it for
        LOCK_TIMEOUT_S, the pass is skipped, and `report` says so. If callers joined after the last round of
        checks had begun, or joined a skipped pass, a new pass starts for them as soon as this one has ended.
        """
        self.count += 1
        began_at = time.monotonic()
        found: dict[str, Any] = {}
        try:
            async with hold_lock(self._lock_file, LOCK_TIMEOUT_S):
                found = await self._look_for_everyone(report)
        except LockHeld as error:
            report.left.append(f"agent: {error}; this pass was skipped")
        except Exception as error:  # the top of a task: whatever fails, the next pass must be possible
            log.exception("recovery pass %s failed", report.run_id)
            report.left.append(f"agent: the pass itself failed ({error!r})")
        finally:
            report.state, report.finished_at, self._running = "done", time.time(), None
        if report.found or report.left or report.reason != "scheduled" or self._records_all():
            self._record(report, found, time.monotonic() - began_at)
        if self._joined.is_set() and not self._closed:  # the last look began before these callers joined
            self.request(f"asked for while pass {report.run_id} ended")

    async def _look_for_everyone(self, report: Report) -> dict[str, Any]:
        """Run rounds of checks and remedies until no caller has joined the pass since the last round began.
        Each round writes its results to `report`. Return the fields of the pass's journal entry that say
        which services the last check covered, which of them it found unhealthy, and why.

        After each round, wait `join_window_s` for further callers, because a thousand simultaneous callers
        take longer to arrive than a check of a healthy machine takes. There are at most MAX_LOOKS rounds, and
        a round that ends more than `settle_s` seconds after the first one began is the last. If callers have
        joined since the last round began, `_run` starts a new pass for them.
        """
        checks = LatestCheck(self._checks, self._journal)
        under_way = RecoveryPass(checks, self._remedies, self._journal, report, self._settle_s)
        deadline = time.monotonic() + self._settle_s
        for number in range(1, MAX_LOOKS + 1):
            self._joined.clear()
            await under_way.look(self._joined, is_last=number == MAX_LOOKS)
            if time.monotonic() > deadline:
                break
            try:
                async with asyncio.timeout(self._join_window_s):
                    await self._joined.wait()
            except TimeoutError:
                break
            await asyncio.sleep(self._join_window_s)
        return under_way.left() | checks.fields

    def _record(self, report: Report, found: dict[str, Any], took_s: float) -> None:
        self._journal.record(
            "recovery",
            "recovery_finished",
            report.summary,
            run_id=report.run_id,
            reason=report.reason,
            healthy=report.healthy,
            took_s=round(took_s, 2),
            **found,
        )
