"""Assign each fault to an incident, and close an incident when all its services are healthy. Pure.

All times are those of the journal's entries. A later entry may have an earlier time, because the machine's
clock may be set while an incident is open. So the entries are applied in the order of their numbers, and an
incident never ends before it began.
"""

from __future__ import annotations

from collections.abc import Iterable

from host_agent.incidents.entry import Entry
from host_agent.incidents.incident import Failure, Incident, Part, Requests
from host_agent.incidents.related import PARENTS, with_children
from host_agent.services import MLX_ENGINE, MLX_SERVER

REOPEN_WITHIN_S = 20.0
"""A fault that follows an incident's last fault, or its end, within this time belongs to the incident."""

LATE_S = 60.0
"""The engine's events come through its gateway, and may be recorded this long after they happened."""

MAX_INCIDENTS = 500


class Ledger:
    """Holds all open incidents and the newest closed ones, oldest first. Adds each fault to the incident that
    it belongs to, and closes an incident when its services are healthy again.
    """

    def __init__(self) -> None:
        self.incidents: list[Incident] = []
        self.live: list[Incident] = []  # open, or closed so recently that a new fault may join them
        self._by_id: dict[int, Incident] = {}
        self._changed: dict[int, Incident] = {}
        self._seq = self._last_id = 0
        self._retired_at = float("-inf")
        self._early = Requests()  # parked requests whose engine's exit is not in the journal yet
        self._early_at = float("-inf")

    def find(self, incident_id: int) -> Incident | None:
        """Return the incident with this id, or None if it is unknown."""
        return self._by_id.get(incident_id)

    def take_changed(self) -> tuple[Incident, ...]:
        """Return the incidents that have changed since the last call."""
        if not self._changed:
            return ()
        changed = tuple(self._changed.values())
        self._changed.clear()
        return changed

    def begin(self, seq: int, ts: float) -> None:
        """Prepare for applying the journal entry `seq`, which was recorded at `ts`.

        Remove from `live` the incidents that ended too long ago for a new fault to join them.
        """
        self._seq = seq
        if not 0.0 <= ts - self._retired_at < 1.0 and self.live:
            self._retired_at = ts
            self.live = [each for each in self.live if each.open or _is_near(each, ts)]

    def mark_changed(self, incident: Incident) -> Incident:
        """Record that the current journal entry, which was last passed to `begin`, has changed `incident`, so
        that `take_changed` returns it. Return `incident`.
        """
        self._changed[incident.id] = incident
        if self._seq > incident.last_seq:
            incident.last_seq = self._seq
        return incident

    # --- faults -----------------------------------------------------------------------------------------

    def fail(self, entry: Entry, failure: Failure, service: str = "") -> Incident:
        """Count a failure of a service, mark the service as unhealthy, and return the incident of the
        failure.

        The service is `entry.service` if `service` is empty.
        """
        service = service or entry.service
        incident, part = self._fault(service, entry)
        part.failed(failure, entry.ts, entry.seq)
        part.is_notice = False
        incident.pending.add(service)
        incident.ended_at = None
        if service in (MLX_ENGINE, MLX_SERVER):
            self._take_early_requests(incident, entry.ts)
        return incident

    def note(self, entry: Entry, failure: Failure, service: str = "") -> None:
        """Record a fault that is over at once. Add it to the open incident in which the service that failed,
        its parent or its child is unhealthy. If there is none, add it to the newest incident whose last fault
        or end was near the time of `entry`; if there is none either, to a new incident. Then end this
        incident, unless one of its services is unhealthy.

        `entry` is the journal entry that reports the fault, and `failure` describes it. The service that
        failed is `service` or, if that is empty, `entry.service`.
        """
        service = service or entry.service
        incident, part = self._fault(service, entry)
        part.is_notice = part.count == 0 or part.is_notice
        part.failed(failure, entry.ts, entry.seq)
        self._close_if_well(incident, entry)

    def _fault(self, service: str, entry: Entry) -> tuple[Incident, Part]:
        """Return the incident to which a fault of the service belongs, and the part of this incident that
        says what happened to the service. Create each of them if it does not exist.

        `entry` is the journal entry that reports the fault. The fault belongs to the open incident in which
        the service, its parent or its child is unhealthy. If there is none, it belongs to the newest incident
        whose last fault or end was near the time of `entry` (see `_is_near`).
        """
        # Nothing else creates incidents: one without a part has no title, and kept the agent from starting.
        found = self.fault_of(service) or self._recent(entry.ts)
        if found is None:
            self._last_id = max(entry.seq, self._last_id + 1)
            found = Incident(self._last_id, entry.ts, entry.seq, entry.seq)
            self.incidents.append(found)
            self.live.append(found)
            self._by_id[found.id] = found
            self._forget_oldest()
        return self.mark_changed(found), found.part(service, entry.ts)

    def open_with(self, service: str) -> Incident | None:
        """Return the open incident in which the service is unhealthy, or None if there is none."""
        return next((each for each in self.live if service in each.pending), None)

    def fault_of(self, service: str) -> Incident | None:
        """Return the open incident in which the service is unhealthy or, if there is none, one in which its
        parent or its child is. Return None if all of them are healthy.
        """
        relatives = {*with_children(service), PARENTS.get(service, service)}
        return self.open_with(service) or next((each for each in self.live if relatives & each.pending), None)

    def _recent(self, ts: float) -> Incident | None:
        return next((each for each in reversed(self.live) if _is_near(each, ts)), None)

    def forget(self, incident: Incident) -> None:
        """Delete an incident, because it was no fault or because there are too many."""
        self.mark_changed(incident)
        self.incidents.remove(incident)
        self.live = [each for each in self.live if each is not incident]
        del self._by_id[incident.id]

    def _forget_oldest(self) -> None:
        surplus = len(self.incidents) - MAX_INCIDENTS
        if surplus > 0:
            for old in [each for each in self.incidents if not each.open][:surplus]:
                self.forget(old)

    # --- ends -------------------------------------------------------------------------------------------

    def end(self, entry: Entry, services: Iterable[str], why: str = "") -> None:
        """Record that these services are healthy again or, if `why` is given, why they need not be healthy.
        Close each incident in which, as a result, no service is unhealthy any more.

        `entry` is the journal entry that reports this. A closed incident gets its end from the entry's time,
        and its field `ending` from the entry's event.
        """
        ended = set(services)
        for incident in self.live:
            if not ended & incident.pending:
                continue
            for service in ended & incident.pending:
                part = incident.parts.get(service)
                if part is not None:
                    part.end = why
                    part.close_breaker(entry.ts)
            incident.pending -= ended
            self._close_if_well(self.mark_changed(incident), entry)

    def _close_if_well(self, incident: Incident, entry: Entry) -> None:
        if not incident.pending:
            last_fault_at = max(part.last_fault_at for part in incident.parts.values())
            incident.ended_at = max(incident.began_at, entry.ts, min(last_fault_at, entry.ts + LATE_S))
            incident.ending = entry.event

    # --- requests ---------------------------------------------------------------------------------------

    def requests_now(self) -> Requests | None:
        """Return the request counts of the newest incident of the engine or the gateway, for the caller to
        update. The incident is marked as changed.

        Only incidents count that are open, or that ended so recently that a new fault would still join them
        (REOPEN_WITHIN_S). Return None if there is none.
        """
        for incident in reversed(self.live):
            if MLX_ENGINE in incident.parts or MLX_SERVER in incident.parts:
                return self.mark_changed(incident).requests
        return None

    def park_early(self, entry: Entry) -> Requests:
        """Return a new, empty Requests object. The caller adds to it the requests that wait because their
        engine has ended, while the journal does not report the engine's exit yet. `entry` is the journal
        entry about the waiting requests.

        The next failure of the engine or the gateway takes these requests into its incident, if the failure
        was recorded at most REOPEN_WITHIN_S before or after `entry`. If it was not, or if this method is
        called again before that failure, the requests are discarded.
        """
        self._early, self._early_at = Requests(), entry.ts
        return self._early

    def _take_early_requests(self, incident: Incident, ts: float) -> None:
        early, self._early = self._early, Requests()
        if early.waited and abs(ts - self._early_at) <= REOPEN_WITHIN_S:
            incident.requests.park(sorted(early.parked), early.most_parked)


def _is_near(incident: Incident, ts: float) -> bool:
    """Return whether a fault at the time `ts` belongs to the incident. It does if `ts` is at most LATE_S
    before or REOPEN_WITHIN_S after the incident's last activity: its last fault or its end, whichever is
    later.
    """
    return -LATE_S <= ts - incident.last_activity_at <= REOPEN_WITHIN_S
