"""Keep what earlier journal entries said about the agent and the processes, for reading later ones. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

from host_agent.incidents.incident import Failure

ASKED_S = 120.0


@dataclass
class ProcessTrace:
    """The latest state of one service's process, as the journal's entries describe it.

    `alive`: the process runs, as far as is known. `exit` describes its exit until a later entry shows whether
    the exit was planned. `counted`: this failure is counted already. `for_memory`: the kernel killed the
    process to free memory. `asked` is a person's latest request: stop, restart or kill.
    """

    alive: bool = False
    exit: Failure | None = None
    exit_seq: int = 0
    counted: bool = False
    for_memory: bool = False
    asked: str = ""
    asked_at: float = 0.0

    def was_asked(self, ts: float) -> str:
        """Return what a person asked for within ASKED_S of `ts`; empty if nothing."""
        return self.asked if abs(ts - self.asked_at) <= ASKED_S else ""


@dataclass
class Known:
    """Facts from earlier entries that are needed to read later ones. Times are seconds since 1970.

    `last_ts` is the time of the previous entry. `agent_runs`: an agent started, at `agent_started_at`, and
    was not stopped since. Until `starting_until`, services that do not run yet are being started, which is
    no fault.
    """

    traces: dict[str, ProcessTrace] = field(default_factory=dict)
    last_ts: float = 0.0
    agent_runs: bool = False
    agent_started_at: float = 0.0
    starting_until: float = float("-inf")
    woke_at: float = float("-inf")
    slept_s: float = 0.0

    def trace(self, service: str) -> ProcessTrace:
        """Return the trace of a service's process; create it at the first call."""
        return self.traces.setdefault(service, ProcessTrace())
