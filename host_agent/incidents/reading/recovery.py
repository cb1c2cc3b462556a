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

BY_PASS = "a recovery pass"
"""The `stopped_by` of a container that a recovery pass restarts."""

ENDS_PROCESS = "end the hung process"
"""The beginning of the one remedy, `ReplaceHungChild`, that ends a supervised process."""

PASS_LOOKED_S = 2.0
"""Entries of earlier versions do not say when the last check of their pass began. It is taken to have begun
this long before the entry.
"""


class RecoveryEvents:
    """Opens, changes and ends the incidents in `ledger` because of the journal's events about recovery
    passes, containers and health checks. Each public method handles the event of the same name.

    `known` has the facts from earlier events that are needed to interpret later ones.
    """

    def __init__(self, ledger: Ledger, known: Known) -> None:
        self._ledger, self._known = ledger, known

    def remedy_applied(self, entry: Entry) -> None:
        """Open a fault, because a recovery pass found a service that does not work and applied a remedy. If
        the remedy ends the service's process, that end is no further failure.
        """
        service = entry.service
        incident = self._ledger.fault_of(service)
        if incident is None:
            if entry.ts < self._known.starting_until and not self._known.trace(service).alive:
                return  # an agent's first recovery pass starts services, which is no fault
            incident = self._ledger.fail(entry, _found(service, entry.cause))
        remedy = failures.detail(entry.text("remedy"))
        done = f"A recovery pass acted on {name_of(service)}: {remedy}."
        self._ledger.mark_changed(incident).add_done(done)
        trace = self._known.trace(service)
        if remedy.startswith(ENDS_PROCESS) and trace.exit is None:
            trace.exit, trace.counted = _found(service, entry.cause), True

    def only_a_reboot_helps(self, entry: Entry) -> None:
        """Open a fault, because a recovery pass found memory in use that belongs to no process."""
        service = entry.service or MEMORY
        incident = self._ledger.open_with(service) or self._ledger.fail(
            entry, _found(service, entry.cause), service
        )
        self._ledger.mark_changed(incident).become_urgent(entry.event, service)

    def recovery_finished(self, entry: Entry) -> None:
        """End the faults of services that the last check of a recovery pass found healthy or absent, and open
        a fault for each that it found faulty.

        The field `healthy` is about services only: memory may run short although every service is healthy. A
        healthy service may have an issue too, such as a runner that Ollama's last server has left.
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
        if healthy:
            ill &= {MEMORY}
        ended, absent = self._checked_by_pass(entry) - ill, entry.names("absent")
        for service in sorted(ended):
            self._ledger.end(entry, [service], f"no {service} is left" if service in absent else "")

    def _checked_by_pass(self, entry: Entry) -> set[str]:
        """Return the unhealthy services that the last check of the recovery pass covered, if the check began
        after their last fault. `entry` is the journal entry about the pass.
        """
        checked, checked_seq = entry.names("checked"), entry.reference("checked_seq")
        pending = [(incident, service) for incident in self._ledger.live for service in incident.pending]
        if not checked:  # the pass of an earlier version, which covered every service but the disk
            return {each for incident, each in pending if _is_seen(incident, each, entry.ts)} - {DISK}
        return {
            service
            for incident, service in pending
            if service in checked and _last_fault_seq(incident, service) <= checked_seq
        }

    def container_died(self, entry: Entry) -> None:
        """Open a fault, because a container ended. If the container was stopped on purpose, end its fault
        instead; but if it was stopped only to be restarted, leave its fault open until it is healthy.
        """
        if entry.text("reason") == "stopped":
            if not self._is_restart(entry):
                self._ledger.end(entry, [entry.service], f"{name_of(entry.service)} was stopped")
            elif incident := self._ledger.open_with(entry.service):
                self._ledger.mark_changed(incident)
            return
        incident = self._ledger.fail(entry, failures.of_container(entry))
        if entry.text("reason") == "out_of_memory":
            incident.become_urgent(entry.event, entry.service)

    def _is_restart(self, entry: Entry) -> bool:
        """Return whether the container that ended according to `entry` was stopped to be restarted: by a
        recovery pass, which stops no container for good, or because a person asked for a restart.
        """
        by, asked = entry.text("stopped_by"), self._known.trace(entry.service).was_asked(entry.ts)
        return by == BY_PASS or (by != "" and asked == "restart")

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


def _last_fault_seq(incident: Incident, service: str) -> int:
    """Return the number of the journal entry about the service's last fault in the incident."""
    part = incident.parts.get(service)
    return incident.first_seq if part is None else part.last_fault_seq


def _is_seen(incident: Incident, service: str, pass_ended_at: float) -> bool:
    """Return whether the last check of a recovery pass began after the service's last fault. This function is
    for passes of earlier versions of Vestal, whose journal entries do not say when the check began.

    The check is taken to have begun PASS_LOOKED_S before `pass_ended_at`. A fault up to LATE_S after that
    moment was not seen. A fault with a still later time counts as seen.
    """
    part = incident.parts.get(service)
    last_fault_at = incident.began_at if part is None else part.last_fault_at
    return not 0 <= last_fault_at - pass_ended_at + PASS_LOOKED_S <= LATE_S
