"""Count, for each incident, the requests that had to wait for another engine, continued, or failed, according
to the journal's events. Pure.
"""

from __future__ import annotations

from host_agent.incidents.entry import Entry
from host_agent.incidents.ledger import Ledger


class RequestEvents:
    """Counts the requests that a failure of the MLX engine or its gateway affected. The counts go into the
    newest incident of these two services in `ledger`, if it is open or has just ended. Each public method
    handles the journal's event of the same name.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def requests_parked(self, entry: Entry) -> None:
        """Count requests that wait because their engine has ended.

        This event may come before the event about the engine's exit.
        """
        requests = self._ledger.requests_now() or self._ledger.park_early(entry)
        requests.park(entry.ids(), entry.count("count"))

    def request_resumed(self, entry: Entry) -> None:
        """Count a request that got its next token from another engine."""
        if requests := self._ledger.requests_now():
            for request_id in entry.ids():
                requests.resume(request_id)

    request_passed_on = request_resumed  # another machine continues the request

    def requests_lost(self, entry: Entry) -> None:
        """Count requests that failed because they crashed engines repeatedly, or no engine started in
        time.
        """
        if requests := self._ledger.requests_now():
            requests.drop(entry.ids(), entry.count("count"))

    def answers_taken_up(self, entry: Entry) -> None:
        """Count the answers that a new gateway continues after the previous gateway ended."""
        if requests := self._ledger.requests_now():
            requests.taken_up = max(requests.taken_up, entry.count("count"))
