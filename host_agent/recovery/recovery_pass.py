"""One recovery pass: check every service, find the issues, apply their remedies, and check again."""

import asyncio
import contextlib
import logging
import time
from typing import Any, Protocol

from host_agent.journal import Journal
from host_agent.recovery.facts import Facts
from host_agent.recovery.issues import STOPPED_BY_HAND, Issue, find_issues
from host_agent.recovery.remedies import Remedy
from host_agent.recovery.report import Report

log = logging.getLogger("vestal")

RECHECK_INTERVAL_S = 0.25


class Checks(Protocol):
    """The interface through which a recovery pass checks the machine."""

    async def gather(self) -> Facts:
        """Check every service now, and return the facts."""


class Remedies(Protocol):
    """The interface through which a recovery pass acts on the machine."""

    async def apply(self, remedy: Remedy) -> None:
        """Carry a remedy out. Raises an exception whose text is a sentence if that is not possible."""


class RecoveryPass:
    """One recovery pass, which writes its results to `report`.

    Each call of `look` checks every service, applies remedies, and waits at most `settle_s` seconds for the
    services to recover. `look` is called once, and again if callers have joined the pass.
    """

    def __init__(
        self, checks: Checks, remedies: Remedies, journal: Journal, report: Report, settle_s: float
    ) -> None:
        self._checks, self._remedies, self._journal = checks, remedies, journal
        self._report, self._settle_s = report, settle_s
        self._applied: list[Issue] = []  # findings of all checks: a service may need several remedies
        self._remaining: tuple[Issue, ...] = ()  # what the last check found

    async def look(self, joined: asyncio.Event, *, is_last: bool) -> None:
        """Check the services and apply the remedies. Then repeat the check until no service is expected to
        recover any more, by itself or by its remedy, or until `settle_s` seconds are over. Write the results
        to the report.

        `joined` is clear when this method is called, and is set when another caller joins the pass. That
        caller needs a check that begins after it joined, and gets it from the next call of this method or
        from a new pass. So once `joined` is set, the check is not repeated any more.

        `is_last` says that no further call follows in this pass. The check is then repeated even if `joined`
        is set, until it finds that a service needs a remedy. A call applies remedies only at its beginning,
        so a remedy that is needed later must be applied by the new pass.
        """
        began_at = time.monotonic()
        facts = await self._checks.gather()
        issues = find_issues(facts)
        found = [_line(issue, issue.found) for issue in issues]
        self._report.found += [line for line in found if line not in self._report.found]
        for issue in issues:
            if issue.event:
                self._journal.record(issue.service, issue.event, f"{issue.found}; {issue.advice}")
        failures: list[tuple[Issue, str]] = []
        for issue in issues:
            if issue.remedy and await self._apply(issue, issue.remedy, failures):
                self._applied.append(issue)
        if issues:
            facts = await self._recheck(joined, is_last)
        self._write(facts, failures, time.monotonic() - began_at)

    def left(self) -> dict[str, Any]:
        """Return two fields for the journal: `unhealthy` lists the services that the last check found
        unhealthy, and `faults` has a sentence about each of them that no person stopped and that does not
        recover by itself.
        """
        faults = {
            issue.service: issue.advice or issue.found
            for issue in self._remaining
            if issue.found != STOPPED_BY_HAND and not issue.resolves_itself
        }
        return {"unhealthy": sorted({issue.service for issue in self._remaining}), "faults": faults}

    async def _apply(self, issue: Issue, remedy: Remedy, failures: list[tuple[Issue, str]]) -> bool:
        """Apply a remedy and return True. If it fails, add the failure to `failures` and return False, so
        that the next issues get their remedies too.
        """
        self._journal.record(issue.service, "remedy_applied", issue.found, remedy=str(remedy))
        try:
            await self._remedies.apply(remedy)
        except Exception as error:
            log.warning("remedy for %s failed", issue.service, exc_info=True)
            failures.append((issue, f"tried to {remedy}, but: {str(error) or repr(error)}"))
            return False
        return True

    async def _recheck(self, joined: asyncio.Event, is_last: bool) -> Facts:
        """Repeat the check until no service is expected to recover any more, by itself or by its remedy, but
        not for longer than `settle_s` seconds. Return the facts of the last check.

        Return early if `joined` is set: another caller has joined the pass, and gets a later check of its
        own. But with `is_last`, which says that this pass makes no later check, return early only if `joined`
        is set and a service needs a remedy.
        """
        facts = await self._checks.gather()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._settle_s):
                while any(self._may_recover(issue) for issue in find_issues(facts)):
                    needs_remedy = any(issue.remedy for issue in find_issues(facts))
                    if joined.is_set() and (needs_remedy or not is_last):
                        break
                    await asyncio.sleep(RECHECK_INTERVAL_S)
                    facts = await self._checks.gather()
        return facts

    def _may_recover(self, issue: Issue) -> bool:
        """Return True if the issue is expected to end by itself, or by a remedy that this pass has applied.
        Nothing but a person starts a service that was stopped by hand.
        """
        remedied = issue.subject in {applied.subject for applied in self._applied}
        return issue.resolves_itself or (remedied and issue.found != STOPPED_BY_HAND)

    def _write(self, facts: Facts, failures: list[tuple[Issue, str]], took_s: float) -> None:
        self._remaining = remaining = find_issues(facts)
        unhealthy = {issue.subject for issue in remaining}
        healed = [issue for issue in self._applied if issue.subject not in unhealthy]
        self._report.done = list(dict.fromkeys(map(_healed, healed)))
        self._report.left = _left(failures, self._applied, remaining, took_s)
        self._report.healthy = facts.healthy


async def dry_run(checks: Checks) -> Report:
    """Return the report of what a pass would do now. Nothing is done."""
    report = Report("dry-run", "dry run", time.time(), dry_run=True)
    facts = await checks.gather()
    for issue in find_issues(facts):
        report.found.append(_line(issue, issue.found))
        if issue.remedy:
            report.done.append(_line(issue, f"would {issue.remedy}"))
        elif not issue.resolves_itself:
            report.left.append(_line(issue, issue.advice))
    report.healthy, report.state, report.finished_at = facts.healthy, "done", time.time()
    return report


def _line(issue: Issue, text: str) -> str:
    return f"{issue.service}: {text}"


def _healed(issue: Issue) -> str:
    return _line(issue, f"{issue.found}; did: {issue.remedy}; it is healthy now")


def _left(
    failures: list[tuple[Issue, str]], applied: list[Issue], remaining: tuple[Issue, ...], took_s: float
) -> list[str]:
    """Return what a person still has to know or do, as one line for each service: why its remedies failed,
    and which of its issues remain. A failed remedy is listed even if every service is healthy in the end.

    `failures` are pairs of an issue and the reason why its remedy failed, `applied` are the issues whose
    remedy was applied, and `remaining` are the issues of the last check. `took_s` is how many seconds the
    checks and remedies took; this time is named in the line of a service that was expected to recover and did
    not.
    """
    reasons: dict[str, list[str]] = {}
    for issue, why in failures:
        reasons.setdefault(issue.service, []).append(why)
    failed, remedied = {issue.subject for issue, _ in failures}, {issue.subject for issue in applied}
    for issue in remaining:
        if issue.advice:
            reasons.setdefault(issue.service, []).append(issue.advice)
        elif issue.subject not in failed:
            waited = issue.resolves_itself or issue.subject in remedied
            why = (
                f"still unhealthy after {took_s:.0f} s"
                if waited
                else "found as the pass ended; the next pass handles it"
            )
            reasons.setdefault(issue.service, []).append(f"{issue.found}; {why}")
    return [f"{service}: {'; '.join(dict.fromkeys(whys))}" for service, whys in reasons.items()]
