"""What the entries so far said about the agent and the processes. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

from host_agent.incidents.incident import Failure

ASKED_S = 120.0


@dataclass
class ProcessTrace:
    """What the entries said last about one service's process.

    `alive`: there is one, as far as is known. `exit` is how it ended, while it is not known whether it was
    to end. `counted`: this failure is counted already. `for_memory`: the kernel killed it. `asked` is what a
    person asked for: stop, restart or kill.
    """

    alive: bool = False
    exit: Failure | None = None
    exit_seq: int = 0
    counted: bool = False
    for_memory: bool = False
    asked: str = ""
    asked_at: float = 0.0

    def was_asked(self, ts: float) -> str:
        """Return what a person asked for lately."""
        return self.asked if abs(ts - self.asked_at) <= ASKED_S else ""


@dataclass
class Known:
    """What one entry says that a later one needs. Times are seconds since 1970.

    `last_ts` is the time of the entry before. `agent_runs`: an agent has started, at `agent_started_at`, and
    was not stopped since. Until `starting_until`, a recovery pass may have to start what does not run yet.
    """

    traces: dict[str, ProcessTrace] = field(default_factory=dict)
    last_ts: float = 0.0
    agent_runs: bool = False
    agent_started_at: float = 0.0
    starting_until: float = float("-inf")
    woke_at: float = float("-inf")
    slept_s: float = 0.0

    def trace(self, service: str) -> ProcessTrace:
        """Return the trace of a service's process."""
        return self.traces.setdefault(service, ProcessTrace())
