"""The events about requests that wait for another engine, go on, or are lost. Pure."""

from __future__ import annotations

from host_agent.incidents.entry import Entry
from host_agent.incidents.ledger import Ledger


class RequestEvents:
    """Counts the requests of incidents. Each public method is an event."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def requests_parked(self, entry: Entry) -> None:
        """Requests have lost their engine. This may come before the engine's end."""
        requests = self._ledger.requests_now() or self._ledger.park_early(entry)
        requests.park(entry.ids(), entry.count("count"))

    def request_resumed(self, entry: Entry) -> None:
        """A request has got its next token."""
        if requests := self._ledger.requests_now():
            for request_id in entry.ids():
                requests.resume(request_id)

    request_passed_on = request_resumed  # on another machine

    def requests_lost(self, entry: Entry) -> None:
        """Requests failed: they made engines die, or none came in time."""
        if requests := self._ledger.requests_now():
            requests.drop(entry.ids(), entry.count("count"))

    def answers_taken_up(self, entry: Entry) -> None:
        """A gateway goes on with the answers that the one before has left unfinished."""
        if requests := self._ledger.requests_now():
            requests.taken_up = max(requests.taken_up, entry.count("count"))
