"""Update the incidents by the journal's events about recovery passes, containers, and an Ollama that hangs.
Pure.
"""

from __future__ import annotations

from host_agent.incidents import failures
from host_agent.incidents.entry import Entry
from host_agent.incidents.failures import HUNG
from host_agent.incidents.incident import Failure, Incident
from host_agent.incidents.ledger import LATE_S, Ledger
from host_agent.incidents.reading.known import Known
from host_agent.incidents.related import DISK, MEMORY, name_of, with_children
from host_agent.services import OLLAMA

PASS_LOOKED_S = 2.0
"""A recovery pass is recorded at most this long after its checks, which miss any fault in between."""


class RecoveryEvents:
    """Opens, changes and ends the incidents in `ledger` because of the journal's events about recovery
    passes, containers and health checks. Each public method handles the event of the same name.

    `known` has the facts from earlier events that are needed to interpret later ones.
    """

    def __init__(self, ledger: Ledger, known: Known) -> None:
        self._ledger, self._known = ledger, known

    def remedy_applied(self, entry: Entry) -> None:
        """Open a fault, because a recovery pass found a service that does not work and applied a remedy."""
        service = entry.service
        incident = self._ledger.fault_of(service)
        if incident is None:
            if entry.ts < self._known.starting_until and not self._known.trace(service).alive:
                return  # an agent's first recovery pass starts services, which is no fault
            incident = self._ledger.fail(entry, _found(service, entry.cause))
        remedy = failures.detail(entry.text("remedy"))
        done = f"A recovery pass acted on {name_of(service)}: {remedy}."
        self._ledger.mark_changed(incident).add_done(done)

    def only_a_reboot_helps(self, entry: Entry) -> None:
        """Open a fault, because a recovery pass found memory in use that belongs to no process."""
        service = entry.service or MEMORY
        incident = self._ledger.open_with(service) or self._ledger.fail(
            entry, _found(service, entry.cause), service
        )
        self._ledger.mark_changed(incident).become_urgent(entry.event, service)

    def recovery_finished(self, entry: Entry) -> None:
        """End the faults of services that a recovery pass found healthy, and open a fault for each that it
        found faulty.
        """
        self._known.starting_until = float("-inf")
        healthy = entry.fields.get("healthy") is True
        if not healthy and "unhealthy" not in entry.fields:
            return  # the recovery pass has no finding about services
        faults = {} if healthy else entry.sentences("faults")
        for service, sentence in faults.items():
            if self._ledger.fault_of(service) is None:
                self._ledger.fail(entry, _found(service, sentence), service)
        unhealthy = entry.names("unhealthy") | faults.keys()
        ill = {each for service in unhealthy for each in with_children(service)}
        self._ledger.end(entry, self._seen_by_pass(entry.ts) - (set() if healthy else ill) - {DISK})

    def _seen_by_pass(self, ts: float) -> set[str]:
        """Return the services that were already unhealthy when the recovery pass that ended at `ts` checked
        them.
        """
        return {
            service
            for incident in self._ledger.live
            for service in incident.pending
            if not 0 <= _last_fault_at(incident, service) - ts + PASS_LOOKED_S <= LATE_S
        }

    def container_died(self, entry: Entry) -> None:
        """Open a fault, because a container ended; if a person stopped the container, end its fault
        instead.
        """
        if entry.text("reason") == "stopped":
            self._ledger.end(entry, [entry.service], f"{name_of(entry.service)} was stopped")
            return
        incident = self._ledger.fail(entry, failures.of_container(entry))
        if entry.text("reason") == "out_of_memory":
            incident.become_urgent(entry.event, entry.service)

    def container_unhealthy(self, entry: Entry) -> None:
        """Open a fault, because Docker's health check of a container failed."""
        self._ledger.fail(entry, Failure("did not answer", "its Docker health check failed"))

    def container_healthy(self, entry: Entry) -> None:
        """End the fault of a container that had ended or was unhealthy."""
        incident = self._ledger.open_with(entry.service)
        if incident and (part := incident.parts.get(entry.service)):
            part.restarts += 1
        self._ledger.end(entry, [entry.service])

    def container_out_of_memory(self, entry: Entry) -> None:
        """Add a notice that the kernel killed a process in a container because the container's memory was
        full.
        """
        self._ledger.note(entry, Failure("lost a process", "the kernel killed it for want of memory"))

    def silence_judged(self, entry: Entry) -> None:
        """Open a fault if an Ollama that does not answer is judged to hang; do nothing if it is only busy."""
        if entry.text("judgement") == "hangs" and not self._ledger.open_with(OLLAMA):
            self._ledger.fail(entry, Failure(HUNG, failures.detail(entry.cause)), OLLAMA)

    def silence_ended(self, entry: Entry) -> None:
        """End the fault of an Ollama that did not answer, because it answers again."""
        self._ledger.end(entry, [OLLAMA])


def _found(service: str, cause: str) -> Failure:
    return Failure("ran short" if service == MEMORY else "was found not to work", failures.detail(cause))


def _last_fault_at(incident: Incident, service: str) -> float:
    part = incident.parts.get(service)
    return incident.began_at if part is None else part.last_fault_at
