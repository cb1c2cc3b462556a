"""Combine the journal's entries, in their order, into incidents. Pure.

An incident opens with the first fault and closes when each of its services is healthy again. A fault that
follows soon after, or while the incident is open, belongs to the same incident: five kills within a minute
are one incident.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from host_agent.incidents.entry import Entry, made
from host_agent.incidents.events import INCIDENT_EVENTS
from host_agent.incidents.incident import Incident
from host_agent.incidents.ledger import Ledger
from host_agent.incidents.reading.agent import AgentEvents
from host_agent.incidents.reading.children import ChildEvents
from host_agent.incidents.reading.known import Known
from host_agent.incidents.reading.recovery import RecoveryEvents
from host_agent.incidents.reading.requests import RequestEvents

WITHOUT_FIELDS = frozenset({"child_adopted", "child_killed", "child_ready", "child_started", "child_stopped"})
"""Frequent events whose fields are not needed for incidents, so that they need not be parsed."""


class IncidentFold:
    """Derives the incidents from journal entries, which must be added in their order. `ledger` has the
    incidents.

    If an entry cannot be applied because of a bug, `on_bug` is called with the name of its event and the
    exception, and the entry is skipped. Without `on_bug`, the exception is raised.
    """

    def __init__(self, on_bug: Callable[[str, Exception], None] | None = None) -> None:
        self.ledger = Ledger()
        self._on_bug = on_bug
        self._known = Known()
        readers = (
            ChildEvents(self.ledger, self._known),
            AgentEvents(self.ledger, self._known),
            RecoveryEvents(self.ledger, self._known),
            RequestEvents(self.ledger),
        )
        self._methods: dict[str, Callable[[Entry], None]] = {
            event: method
            for reader in readers
            for event in INCIDENT_EVENTS
            if (method := getattr(reader, event, None))
        }

    @property
    def reads(self) -> frozenset[str]:
        """Return the names of the events that can change an incident. Other events are ignored."""
        return frozenset(self._methods)

    def add(self, raw: Mapping[str, Any]) -> tuple[Incident, ...]:
        """Update the incidents by `raw`, the journal's next event as a dict, and return the incidents that
        have changed. An event that cannot change an incident is ignored.
        """
        event = raw.get("event")
        if not isinstance(event, str) or event not in self._methods:
            return ()
        head = (raw.get("seq"), raw.get("ts"), raw.get("component"), event, raw.get("cause"))
        self._apply(made(*head, raw.get("fields"), self._known.last_ts))
        return self.ledger.take_changed()

    def add_rows(self, rows: Iterable[tuple[Any, ...]], parse: Callable[[str], Any]) -> None:
        """Update the incidents by the journal's next events, which are rows of its file.

        `parse` decodes an event's fields, and is called only if they are needed. An agent that starts after
        many crashes reads twenty thousand rows, so this loop must be fast.
        """
        known, methods = self._known, self._methods
        for seq, ts, component, event, cause, text in rows:
            if event in methods:
                fields = {} if event in WITHOUT_FIELDS or text == "{}" else parse(text)
                self._apply(made(seq, ts, component, event, cause, fields, known.last_ts))
        self.ledger.take_changed()

    def _apply(self, entry: Entry) -> None:
        """Update the incidents by `entry`. If this raises an exception, which is a bug, pass the exception to
        `on_bug` instead of raising it, so that the agent can still start. Raise it if there is no `on_bug`.
        """
        try:
            self.ledger.begin(entry.seq, entry.ts)
            self._methods[entry.event](entry)
        except Exception as error:
            if self._on_bug is None:
                raise
            self._on_bug(entry.event, error)
        self._known.last_ts = entry.ts


def fold(entries: Iterable[Mapping[str, Any]]) -> list[Incident]:
    """Return the incidents that these journal entries describe, oldest first."""
    folded = IncidentFold()
    for entry in entries:
        folded.add(entry)
    return folded.ledger.incidents
