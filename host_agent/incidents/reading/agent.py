"""Update the incidents by the journal's events about the agent, its disk, and the notices that it sends to a
person. Pure.
"""

from __future__ import annotations

from host_agent.incidents import failures
from host_agent.incidents.entry import Entry
from host_agent.incidents.failures import NOT_STARTED
from host_agent.incidents.incident import Failure
from host_agent.incidents.ledger import Ledger
from host_agent.incidents.reading.known import Known
from host_agent.incidents.related import DISK, MEMORY, WATCHDOG, WORKER
from host_agent.services import AGENT, NAMES

STARTING_UP_S = 120.0
DOWN_TAKES_S = 10.0
ENDED_WITH_VESTAL = "Vestal was stopped"
WATCHER_ENDED = "the agent that watched it has ended"
WATCHED_BY_EACH_AGENT = frozenset({*NAMES, MEMORY, WATCHDOG, WORKER})
"""The services whose recovery every agent notices, although an earlier agent recorded their fault."""


class AgentEvents:
    """Applies the journal's events about the agent, its disk and its notices to the incidents in `ledger`.
    Each public method handles the event of the same name.

    `known` has facts from earlier events that are needed to interpret later ones, such as whether an agent
    runs. The methods update it.
    """

    def __init__(self, ledger: Ledger, known: Known) -> None:
        self._ledger, self._known = ledger, known

    def agent_started(self, entry: Entry) -> None:
        """Record that an agent has started. If the previous agent was not stopped, it died, which is a
        fault.
        """
        known = self._known
        died, known.agent_runs = known.agent_runs, True
        rebooted = self._has_rebooted(entry)
        known.agent_started_at, known.boot_id = entry.ts, entry.text("boot_id")
        known.starting_until = entry.ts + STARTING_UP_S
        self._ledger.end(entry, [DISK])  # the new agent checks the disk itself
        pending = {service for incident in self._ledger.live for service in incident.pending}
        self._ledger.end(entry, pending - WATCHED_BY_EACH_AGENT, WATCHER_ENDED)
        if died:
            failure = failures.MACHINE_RESTARTED if rebooted else failures.AGENT_ENDED
            incident = self._ledger.fail(entry, failure, AGENT)
            incident.rebooted = incident.rebooted or rebooted
            if 0 < (last_alive_at := entry.number("last_alive_at")) < incident.began_at:
                incident.began_at = last_alive_at
            incident.part(AGENT, entry.ts).restarts += 1
            self._ledger.end(entry, [AGENT])

    def _has_rebooted(self, entry: Entry) -> bool:
        """Return whether the machine has restarted since the previous agent started. `entry` is about the
        start of the new agent.

        The two agents' boot ids are compared. If one of them is missing, as on macOS, the time of the boot is
        compared with the start of the previous agent, which gives a wrong result if the clock was set in
        between.
        """
        before, now = self._known.boot_id, entry.text("boot_id")
        if before and now:
            return before != now
        return entry.number("booted_at") > self._known.agent_started_at > 0

    def agent_replacing(self, entry: Entry) -> None:
        """Record that the agent executes a newer program. Its services keep running, so open faults stay
        open.
        """
        self._known.agent_runs = False

    def agent_stopping(self, entry: Entry) -> None:
        """End every open incident, because a person stops all of Vestal."""
        self._known.agent_runs = False
        for trace in self._known.traces.values():
            trace.alive = False
        pending = {service for incident in self._ledger.live for service in incident.pending}
        self._ledger.end(entry, pending, ENDED_WITH_VESTAL)
        for incident in list(self._ledger.live):
            # `vestal down` ends the watchdog first. An agent that adopted the watchdog gets no exit status,
            # so this end looked like a fault.
            if incident.parts.keys() == {WATCHDOG} and abs(entry.ts - incident.began_at) <= DOWN_TAKES_S:
                self._ledger.forget(incident)

    agent_stopped = agent_stopping

    def begin_failed(self, entry: Entry) -> None:
        """Open an incident: Ollama could not be started, and none runs that could be supervised instead."""
        self._ledger.fail(entry, Failure(NOT_STARTED, failures.detail(entry.cause)))

    def disk_not_writable(self, entry: Entry) -> None:
        """Open an incident: files cannot be written."""
        incident = self._ledger.fail(entry, Failure("could not be written"), DISK)
        incident.add_cause(entry.cause)
        incident.become_urgent(entry.event, DISK)

    def disk_writable_again(self, entry: Entry) -> None:
        """End the fault of the disk, because files can be written again."""
        if incident := self._ledger.open_with(DISK):
            incident.add_done(f"All could be written again; {failures.detail(entry.cause)}.")
        self._ledger.end(entry, [DISK])

    def journal_replaced(self, entry: Entry) -> None:
        """Add a notice that the journal was damaged or deleted, and was replaced."""
        self._ledger.note(entry, Failure("began a new journal", failures.detail(entry.cause)), AGENT)

    def loop_failed(self, entry: Entry) -> None:
        """Add a notice that one of the agent's background loops raised an exception; the loop is
        restarted.
        """
        self._ledger.note(entry, Failure("failed in a part of its work", failures.detail(entry.cause)), AGENT)

    def service_not_wanted(self, entry: Entry) -> None:
        """End the service's fault, because the settings do not ask for this service any more."""
        self._ledger.end(entry, [entry.service], failures.detail(entry.cause))

    def notice_delivered(self, entry: Entry) -> None:
        """Record that the agent has tried to send a notice about an incident or about its end, so that the
        notice is not sent again. A failed attempt, `notice_not_delivered`, counts too.
        """
        incident = self._ledger.find(entry.reference("incident"))
        if incident is not None:
            is_end = entry.fields.get("over") is True
            incident.notified_of_end = incident.notified_of_end or is_end
            incident.notified = incident.notified or not is_end

    notice_not_delivered = notice_delivered
