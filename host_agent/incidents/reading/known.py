"""Remember facts from earlier journal entries that are needed to interpret later ones. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

from host_agent.incidents.incident import Failure

ASKED_S = 120.0


@dataclass
class ProcessTrace:
    """The latest state of a service's process, according to the journal.

    `alive` is True if the process runs, as far as is known. `exit` describes how the process ended or failed,
    and `exit_seq` is the number of the journal entry about its exit, or 0 if there is none. Only a later
    entry shows whether the exit was planned or a failure. A failure is then counted in an incident, with the
    description; if the incident is new, it begins with the entry `exit_seq`. In both cases, `exit` becomes
    None.

    `counted` is True if an incident has counted the current failure already. `for_memory` is True if the
    kernel killed the process to free memory. `asked` is what a person last requested at `asked_at` (stop,
    restart or kill), or empty.
    """

    alive: bool = False
    exit: Failure | None = None
    exit_seq: int = 0
    counted: bool = False
    for_memory: bool = False
    asked: str = ""
    asked_at: float = 0.0

    def was_asked(self, ts: float) -> str:
        """Return what a person asked to do with the process (`stop`, `restart` or `kill`), at most ASKED_S
        seconds before or after `ts`; empty if nothing.
        """
        return self.asked if abs(ts - self.asked_at) <= ASKED_S else ""


@dataclass
class Known:
    """Facts from earlier entries that are needed to interpret later ones. Times are in seconds since 1970. An
    unknown time is 0 or, for `starting_until` and `woke_at`, minus infinity.

    `traces` maps each service's name to the latest state of its process. `last_ts` is the time of the
    previous entry. `agent_runs` is True if an agent started, at `agent_started_at`, and has not been stopped.
    `boot_id` identifies the boot of the machine that this agent started in; it is empty if unknown.
    Until `starting_until`, the agent is starting services, so a service that does not run yet is no fault.
    `slept_s` is how long the machine slept before it woke at `woke_at`.
    """

    traces: dict[str, ProcessTrace] = field(default_factory=dict)
    last_ts: float = 0.0
    agent_runs: bool = False
    agent_started_at: float = 0.0
    boot_id: str = ""
    starting_until: float = float("-inf")
    woke_at: float = float("-inf")
    slept_s: float = 0.0

    def trace(self, service: str) -> ProcessTrace:
        """Return the ProcessTrace of a service: what the journal has reported about the service's process.
        If there is none, create one with the default values.
        """
        return self.traces.setdefault(service, ProcessTrace())
