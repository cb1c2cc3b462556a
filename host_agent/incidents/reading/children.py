"""Update the incidents by two sorts of journal events: those about supervised processes, and those about a
person's requests to start, stop, restart or kill a process. Pure.
"""

from __future__ import annotations

from host_agent.incidents import failures
from host_agent.incidents.entry import Entry
from host_agent.incidents.failures import HUNG, LATE, NOT_STARTED
from host_agent.incidents.incident import Failure, Incident
from host_agent.incidents.ledger import LATE_S, Ledger
from host_agent.incidents.reading.known import Known, ProcessTrace
from host_agent.incidents.related import PARENTS, name_of, subject, with_children
from host_agent.services import MLX_ENGINE

STOPPED_BY_PERSON = "a person stopped {}"
AS_ASKED = {
    "kill": "could not be killed as a person asked",
    "restart": "could not be restarted as a person asked",
    "start": "could not be started as a person asked",
    "stop": "could not be stopped as a person asked",
}


class ChildEvents:
    """Opens, changes and ends the incidents in `ledger` because of the journal's events about supervised
    processes. Each public method handles the event of the same name.

    `known` has the facts from earlier events that are needed to interpret later ones.
    """

    def __init__(self, ledger: Ledger, known: Known) -> None:
        self._ledger, self._known = ledger, known

    def child_started(self, entry: Entry) -> None:
        """Record that a service's process has started, which counts as a restart if the service had failed.

        If the journal has no exit of the service's previous process, that process ended while no agent ran,
        which is a fault. This does not apply to the engine, whose process ends with that of its parent, the
        gateway. If the gateway has failed, its incident stays open until the engine is healthy, too.
        """
        trace, service = self._trace(entry.service), entry.service
        # If no exit of the last process was recorded, that process ended while no agent ran.
        if trace.alive and service not in PARENTS:
            self._fail(entry, failures.ENDED_UNSEEN).part(service, entry.ts).unseen = True
        self._known.traces[service] = ProcessTrace()  # a failure of the previous process is past
        if incident := self._ledger.open_with(service):
            if part := incident.parts.get(service):
                part.restarts += 1
                part.close_breaker(entry.ts)  # a person need not wait for the trial start
            self._ledger.mark_changed(incident)
        elif incident := self._ledger.open_with(PARENTS.get(service, "")):
            self._ledger.mark_changed(incident).pending.add(service)  # the child ended with its parent

    def child_adopted(self, entry: Entry) -> None:
        """Record that a new supervisor has taken over the running process of an earlier supervisor."""
        self._trace(entry.service).alive = True

    def child_ready(self, entry: Entry) -> None:
        """End the service's fault, because its process is ready."""
        self._known.traces[entry.service] = ProcessTrace(alive=True)
        self._ledger.end(entry, [entry.service])

    def child_exited(self, entry: Entry) -> None:
        """Record that the process exited. The next event shows whether that was planned."""
        trace = self._trace(entry.service)
        trace.alive = False
        if not trace.counted:
            trace.exit = failures.of_exit(entry, by_person=trace.was_asked(entry.ts) == "kill")
            trace.exit_seq = entry.seq

    def engine_killed_for_memory(self, entry: Entry) -> None:
        """Record that the engine was killed by the kernel's out-of-memory killer."""
        trace = self._trace(MLX_ENGINE)
        if trace.exit is not None:
            trace.exit, trace.for_memory = failures.KILLED_FOR_MEMORY, True

    def weights_damaged(self, entry: Entry) -> None:
        """Add a notice that a model's weights were found damaged. The engine has unloaded this model."""
        self._ledger.note(entry, Failure("found damaged weights", failures.detail(entry.cause)), MLX_ENGINE)

    def child_launch_failed(self, entry: Entry) -> None:
        """Record that no process could be created. The next event shows what follows."""
        self._trace(entry.service).exit = Failure(NOT_STARTED, failures.detail(entry.cause))

    def child_killed(self, entry: Entry) -> None:
        """Record that the process did not exit after SIGTERM and was killed."""
        if incident := self._ledger.open_with(entry.service):
            ended = f"{subject(entry.service)} did not end when asked, and was killed."
            self._ledger.mark_changed(incident).add_done(ended)

    def child_start_timed_out(self, entry: Entry) -> None:
        """Count a failure, because the process was not ready in time. The supervisor then terminates the
        process.
        """
        self._fail_at_once(entry, Failure(LATE, failures.detail(entry.cause)))

    def health_failed(self, entry: Entry) -> None:
        """Count a failure of the service: its process has failed so many health checks that it counts as
        hanging, and the supervisor terminates it next. `entry` is the journal entry that says so.
        """
        self._fail_at_once(entry, Failure(HUNG, failures.detail(entry.cause or "no answer")))

    def child_restarting(self, entry: Entry) -> None:
        """Count the failure that led to a restart. A restart without the field `attempt` does not follow a
        failure.
        """
        trace = self._trace(entry.service)
        by_person = trace.was_asked(entry.ts) == "restart"
        if "attempt" in entry.fields and (trace.counted or not by_person):
            self._count_death(entry)
        trace.exit, trace.counted, trace.for_memory, trace.asked = None, False, False, ""

    def breaker_opened(self, entry: Entry) -> None:
        """Count the failure after which the circuit breaker opened: the process has failed too often, and is
        not restarted for a while. The incident of this failure, which is opened if there is none, becomes
        urgent.
        """
        incident = self._count_death(entry)
        incident.part(entry.service, entry.ts).open_breaker(entry.ts, entry.number("open_s"))
        incident.become_urgent(entry.event, entry.service)

    def child_gave_up(self, entry: Entry) -> None:
        """Count the failure after which the supervisor gave up: the process cannot start, and the supervisor
        does not try again. The incident of this failure, which is opened if there is none, becomes urgent.
        """
        incident = self._count_death(entry)
        part = incident.part(entry.service, entry.ts)
        part.close_breaker(entry.ts)
        part.gave_up = failures.detail(entry.cause) or "the cause is not known"
        incident.become_urgent(entry.event, entry.service)

    def breaker_half_opened(self, entry: Entry) -> None:
        """Record that the circuit breaker, which was open, allows a trial start."""
        if incident := self._ledger.open_with(entry.service):
            incident.part(entry.service, entry.ts).close_breaker(entry.ts)
            self._ledger.mark_changed(incident).add_done(
                f"A trial start of {name_of(entry.service)} followed."
            )

    def breaker_closed(self, entry: Entry) -> None:
        """Record that the trial start, which the open circuit breaker allowed, has succeeded. This ends no
        fault: the event `child_ready` came before, and has ended it.
        """
        for incident in self._ledger.live:
            if (part := incident.parts.get(entry.service)) and part.breaker_opens:
                done = f"The trial start of {name_of(entry.service)} succeeded."
                self._ledger.mark_changed(incident).add_done(done)

    def child_stopped(self, entry: Entry) -> None:
        """End the faults of a process that was stopped, and those of its child processes."""
        trace, name = self._trace(entry.service), name_of(entry.service)
        by_person = trace.was_asked(entry.ts) == "stop"
        trace.alive, trace.exit, trace.counted = False, None, False
        why = STOPPED_BY_PERSON.format(name) if by_person else f"{name} was stopped"
        self._ledger.end(entry, with_children(entry.service), why)

    def machine_woke(self, entry: Entry) -> None:
        """Record that the machine woke from sleep, since a failure soon after may be a consequence."""
        self._known.woke_at, self._known.slept_s = entry.ts, entry.number("slept_s")

    # --- requests of a person -----------------------------------------------------------------------------

    def kill_requested(self, entry: Entry) -> None:
        """Record that a person is about to kill the process, for example to see it recover. Its death still
        counts as a failure, but the incident then says that a person sent the signal.
        """
        self._ask(entry, "kill")

    def restart_requested(self, entry: Entry) -> None:
        """Record that a person asked for a restart, so that the end of the old process is no fault."""
        self._ask(entry, "restart")
        if incident := self._ledger.open_with(entry.service):
            self._ledger.mark_changed(incident).add_done(f"A person restarted {name_of(entry.service)}.")

    def start_requested(self, entry: Entry) -> None:
        """Record that a person asked to start the service."""
        self._ask(entry, "")
        if incident := self._ledger.open_with(entry.service):
            self._ledger.mark_changed(incident).add_done(f"A person started {name_of(entry.service)}.")

    def stop_requested(self, entry: Entry) -> None:
        """End the faults of a service and its child processes, because a person stopped the service."""
        self._ask(entry, "stop")
        why = STOPPED_BY_PERSON.format(name_of(entry.service))
        self._ledger.end(entry, with_children(entry.service), why)

    def request_failed(self, entry: Entry) -> None:
        """Add a notice that a person's request could not be carried out (`kill_failed`, `start_failed`,
        …).
        """
        self._ask(entry, "")
        verb = AS_ASKED[entry.event.removesuffix("_failed")]
        self._ledger.note(entry, Failure(verb, failures.detail(entry.cause)))

    kill_failed = start_failed = stop_failed = restart_failed = request_failed

    # --- shared by the events -----------------------------------------------------------------------------

    def _trace(self, service: str) -> ProcessTrace:
        return self._known.trace(service)

    def _ask(self, entry: Entry, what: str) -> None:
        trace = self._trace(entry.service)
        trace.asked, trace.asked_at = what, entry.ts

    def _fail(self, entry: Entry, failure: Failure) -> Incident:
        incident = self._ledger.fail(entry, failure)
        if 0 <= entry.ts - self._known.woke_at <= LATE_S:
            incident.add_cause(f"The machine had just woken from {self._known.slept_s:.0f} s of sleep.")
        return incident

    def _fail_at_once(self, entry: Entry, failure: Failure) -> None:
        """Count a failure now, although the supervisor has yet to terminate the process."""
        self._fail(entry, failure)
        trace = self._trace(entry.service)
        trace.exit, trace.counted = failure, True

    def _count_death(self, entry: Entry) -> Incident:
        """Count the failure that led to `entry`, and return the incident of this failure. `entry` reports
        what the supervisor does about the failure: it restarts the process, opens the circuit breaker or
        gives up.

        The failure is not counted again if an earlier entry (`child_start_timed_out`, `health_failed`) has
        counted it, in an incident that is still open.
        """
        trace = self._trace(entry.service)
        incident = self._ledger.open_with(entry.service) if trace.counted else None
        if incident is None:
            incident = self._fail(entry, trace.exit or Failure("failed", failures.detail(entry.cause)))
            if incident.last_seq == entry.seq and trace.exit_seq:  # a new incident begins with the exit
                incident.first_seq = min(incident.first_seq, trace.exit_seq)
            if failures.says_more(entry.cause):
                incident.add_cause(f"{subject(entry.service)}: {failures.detail(entry.cause)}.")
            if trace.for_memory:
                incident.become_urgent("engine_killed_for_memory", entry.service)
        self._ledger.mark_changed(incident)
        trace.exit, trace.exit_seq, trace.counted, trace.for_memory = None, 0, False, False
        return incident
