"""Decide which incidents a person is notified of, when, and in which words. Pure.

Notices are few: an incident that recovers by itself within a minute gets none, unless it needs a person.
Other incidents get one notice, and another when they are over. `now` is in seconds since 1970.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from host_agent.incidents import Incident, sentence
from host_agent.incidents.ledger import REOPEN_WITHIN_S
from host_agent.incidents.related import subject
from host_agent.incidents.story import Clock

LASTS_S = 60.0
"""Any incident that stays open for longer than this gets a notice. The time that the machine sleeps does not
count.
"""

OpenTime = Callable[[Incident], float]
"""Returns for how many seconds an incident has been open."""

LATE_S = 300.0
"""An incident that ended longer ago than this gets no notice, for example from an agent that has just
started.
"""

LASTS = "incident_lasts"
REMEDY = "`vestal doctor` says what is wrong, `vestal recover --reset` tries again at once."
TITLES = {
    "breaker_opened": "{} keeps failing",
    "child_gave_up": "{} cannot start",
    "only_a_reboot_helps": "Only a reboot helps",
    "disk_not_writable": "The disk cannot be written",
    "container_died": "{} ran out of memory",
    "engine_killed_for_memory": "{} ran out of memory",
    LASTS: "{} has not been well for a minute",
}
"""The title of a notice by the event that makes an incident urgent."""


@dataclass(frozen=True)
class Notice:
    """A notification about `service`, caused by `event`; `ts` is in seconds since 1970.

    `incident` is the incident's id. `over` is True if the notice reports the end of the incident.
    """

    service: str
    event: str
    title: str
    text: str
    ts: float
    incident: int = 0
    over: bool = False

    def as_json(self) -> dict[str, Any]:
        """Return the body for a webhook. Chat programs show only `text`, so it includes the title."""
        return {
            "service": self.service,
            "event": self.event,
            "title": self.title,
            "text": f"{self.title}: {self.text}",
            "ts": self.ts,
            "incident": self.incident,
        }


def due(incidents: Iterable[Incident], clock: Clock, now: float, lasted_s: OpenTime) -> list[Notice]:
    """Return the notices that are due at `now` (seconds since 1970), in the order of `incidents`. A notice
    that was sent is left out: the incident's fields `notified` and `notified_of_end` say so. `clock` formats
    a time in seconds since 1970 for the texts of the notices. `lasted_s` returns for how many seconds an
    incident has been open.
    """
    notices = []
    for incident in incidents:
        if incident.notified and _is_over(incident, now) and not incident.notified_of_end:
            notices.append(_of_end(incident, clock))
        elif not incident.notified and (event := _notice_event(incident, now, lasted_s)):
            notices.append(_of_fault(incident, event, clock))
    return notices


def next_due_in_s(incidents: Iterable[Incident], now: float, lasted_s: OpenTime) -> float:
    """Return after how many seconds a notice may become due without a new event; at most LASTS_S.
    `lasted_s` returns for how many seconds an incident has been open.
    """
    waits = [LASTS_S]
    for incident in incidents:
        if incident.open and not incident.notified and not incident.is_notice:
            waits.append(LASTS_S - lasted_s(incident))
        elif incident.ended_at is not None and incident.notified and not incident.notified_of_end:
            waits.append(incident.ended_at + REOPEN_WITHIN_S - now)
    return max(0.1, min(waits))


def _notice_event(incident: Incident, now: float, lasted_s: OpenTime) -> str:
    """Return the event because of which the incident gets a notice; empty if it gets none yet."""
    if incident.is_notice or (incident.ended_at is not None and now - incident.ended_at > LATE_S):
        return ""
    lasts = incident.open and lasted_s(incident) >= LASTS_S
    return incident.urgency or (LASTS if lasts else "")


def _is_over(incident: Incident, now: float) -> bool:
    """Return whether the incident ended so long ago that a new fault would not reopen it."""
    return incident.ended_at is not None and abs(now - incident.ended_at) >= REOPEN_WITHIN_S


def _of_fault(incident: Incident, event: str, clock: Clock) -> Notice:
    service = incident.urgent_service or next(iter(incident.parts))
    text = sentence(incident, clock)
    text = f"{text} {' '.join(incident.causes[:1])}".rstrip()
    if event not in ("only_a_reboot_helps", "disk_not_writable"):
        text = f"{text} {REMEDY}"
    ts = max(part.last_fault_at for part in incident.parts.values())
    return Notice(service, event, TITLES[event].format(subject(service)), text, ts, incident.id)


def _of_end(incident: Incident, clock: Clock) -> Notice:
    service = incident.urgent_service or next(iter(incident.parts))
    title = f"{subject(service)} is well again"
    if service == "disk":
        title = "The disk can be written again"
    elif why := incident.parts[service].end:
        title = f"{why[:1].upper()}{why[1:]}"
    ended_at = incident.ended_at or incident.began_at
    return Notice(
        service, incident.ending, title, sentence(incident, clock), ended_at, incident.id, over=True
    )
