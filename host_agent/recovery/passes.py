"""Runs recovery passes: one at a time, shared by all who ask meanwhile, bounded, with a report."""

import asyncio
import contextlib
import logging
import time
import uuid
from collections import OrderedDict
from pathlib import Path
from typing import Protocol

from host_agent.journal import Journal
from host_agent.recovery.facts import Facts, Issue, Remedy
from host_agent.recovery.plan import plan
from host_agent.recovery.report import Report
from vestal.platform.file_lock import LockHeld, hold_lock

log = logging.getLogger("vestal")

KEEP_REPORTS = 50
SETTLE_S = 90.0
LOOK_AGAIN_S = 0.25
LINGER_S = 0.5
LOOKS = 5
LOCK_TIMEOUT_S = 600.0  # `vestal up` may be building an image under the same lock


class Effects(Protocol):
    """What a pass reaches the world through."""

    async def gather(self) -> Facts:
        """Look at everything, now."""

    async def apply(self, remedy: Remedy) -> None:
        """Carry it out; raises with a sentence where it cannot be."""


class Passes:
    """Owns the running pass and the reports of those that ended."""

    def __init__(
        self,
        hands: Effects,
        journal: Journal,
        lock_file: Path,
        *,
        settle_s: float = SETTLE_S,
        linger_s: float = LINGER_S,
    ) -> None:
        self._hands, self._journal, self._lock_file = hands, journal, lock_file
        self._settle_s, self._linger_s = settle_s, linger_s
        self._joined = asyncio.Event()
        self._reports: OrderedDict[str, Report] = OrderedDict()
        self._running: Report | None = None
        self._task: asyncio.Task[None] | None = None
        self.count = 0

    @property
    def running(self) -> Report | None:
        return self._running

    @property
    def last(self) -> Report | None:
        """The newest report of a pass that ended."""
        return next((r for r in reversed(self._reports.values()) if r.state == "done"), None)

    def report(self, run_id: str) -> Report | None:
        return self._reports.get(run_id)

    def request(self, reason: str) -> tuple[Report, bool]:
        """The pass that runs now, begun if none does; True where it was begun."""
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
        """Until no pass runs."""
        if self._task is not None:
            await asyncio.wait([self._task])

    async def cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def dry_run(self) -> Report:
        """What a pass would do now."""
        report = Report("dry-run", "dry run", time.time(), dry_run=True)
        facts = await self._hands.gather()
        for issue in plan(facts):
            report.found.append(_line(issue, issue.found))
            if issue.remedy:
                report.done.append(_line(issue, f"would {issue.remedy}"))
            elif not issue.comes_back:
                report.left.append(_line(issue, issue.left))
        report.healthy, report.state, report.finished_at = facts.healthy, "done", time.time()
        return report

    async def _run(self, report: Report) -> None:
        self.count += 1
        try:
            async with hold_lock(self._lock_file, LOCK_TIMEOUT_S):
                await self._heal_for_all(report)
        except LockHeld as error:
            report.left.append(f"agent: {error}; this pass gave way")
        except Exception as error:  # the pass is a loop root: whatever failed is told, and the next one comes
            log.exception("recovery pass %s failed", report.run_id)
            report.left.append(f"agent: the pass itself failed ({error!r})")
        finally:
            report.state, report.finished_at, self._running = "done", time.time(), None
        if report.found or report.left or report.reason != "scheduled":
            self._tell(report)
        if self._joined.is_set():  # after its last look began: their news was seen by nobody
            self.request(f"asked for while pass {report.run_id} ended")

    async def _heal_for_all(self, report: Report) -> None:
        """Who joins gets a look that began after they asked; those who come just as it ends join too."""
        until = time.monotonic() + self._settle_s
        applied: list[Issue] = []
        for number in range(LOOKS):
            self._joined.clear()
            await self._heal(report, applied, patient=number == LOOKS - 1)
            if time.monotonic() > until:  # it was long enough, with whatever remedies there are
                return
            try:
                async with asyncio.timeout(self._linger_s):
                    await self._joined.wait()
            except TimeoutError:
                return
            await asyncio.sleep(self._linger_s)

    async def _heal(self, report: Report, applied: list[Issue], *, patient: bool) -> None:
        """One look. `applied` are all remedies so far. Once joined it waits no longer, or, where it is
        `patient`, not for what has to be remedied anew: the next pass sees to that."""
        began_at = time.monotonic()
        facts = await self._hands.gather()
        issues = plan(facts)
        found = [_line(issue, issue.found) for issue in issues]
        report.found += [line for line in found if line not in report.found]
        for issue in issues:
            if issue.event:
                self._journal.record(issue.service, issue.event, f"{issue.found}; {issue.left}")
        failed: list[tuple[Issue, str]] = []
        applied += [issue for issue in issues if issue.remedy and await self._apply(issue, failed)]
        if issues:
            facts = await self._settle(applied, patient)
        remaining = plan(facts)
        unwell = {issue.service for issue in remaining}
        done = [issue for issue in applied if issue.service not in unwell]
        report.done = list(dict.fromkeys(map(_healed, done)))
        report.left = _once_each(failed, applied, remaining, time.monotonic() - began_at)
        report.healthy = facts.healthy

    async def _apply(self, issue: Issue, failed: list[tuple[Issue, str]]) -> bool:
        """One rung. Its failure is told and does not keep the rungs below from their turn."""
        assert issue.remedy
        self._journal.record(issue.service, "remedy_applied", issue.found, remedy=str(issue.remedy))
        try:
            await self._hands.apply(issue.remedy)
        except Exception as error:
            log.warning("remedy for %s failed", issue.service, exc_info=True)
            failed.append((issue, f"tried to {issue.remedy}, but: {str(error) or repr(error)}"))
            return False
        return True

    async def _settle(self, applied: list[Issue], patient: bool) -> Facts:
        """Look again until all is well or nothing more will change by waiting."""
        facts = await self._hands.gather()
        waited_for = {issue.service for issue in applied}
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._settle_s):
                while any(issue.comes_back or issue.service in waited_for for issue in plan(facts)):
                    anew = any(issue.remedy for issue in plan(facts))
                    if self._joined.is_set() and (anew or not patient):
                        break
                    await asyncio.sleep(LOOK_AGAIN_S)
                    facts = await self._hands.gather()
        return facts

    def _tell(self, report: Report) -> None:
        self._journal.record(
            "recovery",
            "recovery_finished",
            report.summary,
            run_id=report.run_id,
            reason=report.reason,
            healthy=report.healthy,
            took_s=round((report.finished_at or 0) - report.started_at, 2),
        )


def _line(issue: Issue, text: str) -> str:
    return f"{issue.service}: {text}"


def _healed(issue: Issue) -> str:
    return _line(issue, f"{issue.found}; did: {issue.remedy}; it is well now")


def _once_each(
    failed: list[tuple[Issue, str]], applied: list[Issue], remaining: tuple[Issue, ...], took_s: float
) -> list[str]:
    """What is left, one line a service. A remedy that failed is told also where all is well in the end."""
    reasons: dict[str, list[str]] = {}
    for issue, why in failed:
        reasons.setdefault(issue.service, []).append(why)
    told, waited_for = set(reasons), {issue.service for issue in applied}
    for issue in remaining:
        if issue.left:
            reasons.setdefault(issue.service, []).append(issue.left)
        elif issue.service not in told:
            waited = issue.comes_back or issue.service in waited_for
            why = (
                f"not well after {took_s:.0f} s" if waited else "seen as the pass ended; the next sees to it"
            )
            reasons.setdefault(issue.service, []).append(f"{issue.found}; {why}")
    return [f"{service}: {'; '.join(dict.fromkeys(whys))}" for service, whys in reasons.items()]
