"""The last failure of each service, from the journal, which also has those from before the agent's start."""

from collections.abc import Callable, Mapping
from typing import Any

from host_agent.journal import Journal
from host_agent.sentences import as_sentence, readable_cause
from host_agent.services import NAMES
from host_agent.services.service_status import Failure

Wording = Callable[[str, Mapping[str, Any]], str]


def _ended(cause: str, fields: Mapping[str, Any]) -> str:
    why = cause.removeprefix("ended, ") or "why is not known"
    return f"Its process (PID {fields.get('pid')}) ended: {why}"


FAILURES: Mapping[str, Wording] = {
    "child_exited": _ended,
    "child_launch_failed": lambda cause, _: f"It could not be started: {cause}",
    "child_start_timed_out": lambda cause, _: f"It was {cause}",
    "health_failed": lambda cause, _: f"Its health checks failed: {cause or 'no answer'}",
    "container_died": lambda cause, _: f"Its container ended: {cause}",
    "container_out_of_memory": lambda cause, _: "The kernel killed a process in its container for memory",
    "container_unhealthy": lambda cause, _: "Docker's health check of its container failed",
    "silence_judged": lambda cause, _: f"Its model did not answer: {cause}",
    "begin_failed": lambda cause, _: f"It could not be started or adopted: {cause}",
    "start_failed": lambda cause, _: f"A start by hand failed: {cause}",
    "restart_failed": lambda cause, _: f"A restart by hand failed: {cause}",
    "loop_failed": lambda cause, _: f"One of its tasks failed and was started again: {cause}",
}
"""The events that are failures of their component, and the words for each."""

HARMLESS_ENDS = ("stopped", "finished")


def failure_of(entry: Mapping[str, Any]) -> Failure | None:
    """Return the failure that a journal entry records, or None if it records none."""
    wording, fields = FAILURES.get(str(entry["event"])), entry["fields"]
    if wording is None or entry["component"] not in NAMES or not isinstance(fields, Mapping):
        return None
    # Entries of earlier versions do not say whether an end was planned.
    if entry["event"] == "child_exited" and fields.get("planned", True):
        return None
    if entry["event"] == "container_died" and fields.get("reason") in HARMLESS_ENDS:
        return None
    if entry["event"] == "silence_judged" and fields.get("judgement") != "hangs":
        return None
    return Failure(float(entry["ts"]), as_sentence(wording(readable_cause(str(entry["cause"])), fields)))


class LastFailures:
    """Finds the last failure of each service. It reads the whole journal once, and afterwards only new
    entries.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._read_until = 0
        self._found: dict[str, Failure] = {}

    def by_service(self) -> Mapping[str, Failure]:
        """Return the last failure of each service that has one."""
        if self._journal.last_seq > self._read_until:
            entries = self._journal.of_kinds(tuple(FAILURES), self._read_until)
            self._read_until = self._journal.last_seq
            for entry in entries:
                if failure := failure_of(entry):
                    self._found[entry["component"]] = failure
        return self._found
