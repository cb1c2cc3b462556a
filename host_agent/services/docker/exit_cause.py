"""Explain from evidence why a container ended. Pure.

Exit code 137 says SIGKILL and no more. The flag OOMKilled in the container's `docker inspect` record says
that the kernel ended any of the container's processes for lack of memory, at any time, and it may be missing.
Both together, an `oom` event of the Docker engine about the time of the end, or a stop that the agent asked
for, say more.
"""

from dataclasses import dataclass
from enum import StrEnum

from vestal.config.units import format_size

SIGNALS = {1: "SIGHUP", 2: "SIGINT", 6: "SIGABRT", 9: "SIGKILL", 11: "SIGSEGV", 15: "SIGTERM"}
KILLED = 137
SIGNAL_BASE = 128
OOM_WINDOW_S = 10.0  # the engine's `oom` event comes just before or just after its `die` event


class ExitCause(StrEnum):
    """The cause of a container's end."""

    FINISHED = "finished"
    STOPPED = "stopped"
    OUT_OF_MEMORY = "out_of_memory"
    KILLED_BY_REQUEST = "killed_by_request"
    SIGNAL = "signal"
    UNKNOWN_KILL = "unknown_kill"
    ERROR = "error"


@dataclass(frozen=True)
class ContainerExitEvidence:
    """The evidence that shows why a container ended. If the container is started and ends again, that end has
    evidence of its own.

    `oom_flag` is the flag OOMKilled of the container's `docker inspect` record, and `limit_bytes` the
    container's memory limit, 0 if it has none. `stopped_by` names who asked the agent to stop the container,
    such as "a person"; it is "" if the agent did not stop it.

    The other fields are ages of events: of the Docker engine's `oom` event, and of requests to the Docker
    engine. A kill request sends SIGKILL, and a stop request sends a signal that asks the program to end. An
    age is the time in seconds from an event to the container's end, negative if the event came later; None if
    no such event is known.
    """

    exit_code: int
    oom_flag: bool = False
    oom_event_age_s: float | None = None
    kill_request_age_s: float | None = None
    stop_request_age_s: float | None = None
    stopped_by: str = ""
    limit_bytes: int = 0


@dataclass(frozen=True)
class Explanation:
    """The cause of a container's end, and a sentence that explains it, with the remedy if there is one."""

    cause: ExitCause
    sentence: str


def explain(
    evidence: ContainerExitEvidence, limit_setting: str = "VESTAL_ORCHESTRATOR__MEM_LIMIT"
) -> Explanation:
    """Return the cause for which the evidence is strongest, with a sentence about it. If the container
    exceeded its memory limit, the sentence advises raising the setting `limit_setting`.
    """
    code = evidence.exit_code
    if _out_of_memory(evidence):
        limit = f"its limit of {format_size(evidence.limit_bytes)}" if evidence.limit_bytes else "its limit"
        return Explanation(
            ExitCause.OUT_OF_MEMORY,
            f"killed by the kernel: over {limit}; raise {limit_setting} (exit code {code})",
        )
    if evidence.stopped_by:
        return Explanation(ExitCause.STOPPED, f"stopped by {evidence.stopped_by} (exit code {code})")
    if evidence.stop_request_age_s is not None:
        late = "; it did not end in time and was killed" if code == KILLED else ""
        return Explanation(
            ExitCause.STOPPED, f"stopped by a request to the Docker engine{late} (exit code {code})"
        )
    if code == KILLED and _recent(evidence.kill_request_age_s):
        return Explanation(
            ExitCause.KILLED_BY_REQUEST, "killed by a request to the Docker engine (exit code 137)"
        )
    if code == KILLED:
        return Explanation(ExitCause.UNKNOWN_KILL, "SIGKILL, cause unknown (exit code 137)")
    if code == 0:
        return Explanation(ExitCause.FINISHED, "ended by itself (exit code 0)")
    hint = ""
    if evidence.oom_flag:
        hint = f"; the kernel ended a process in it for lack of memory: raise {limit_setting}"
    if code > SIGNAL_BASE:
        name = SIGNALS.get(code - SIGNAL_BASE, f"signal {code - SIGNAL_BASE}")
        return Explanation(ExitCause.SIGNAL, f"ended by {name} (exit code {code}){hint}")
    sentence = f"ended with an error (exit code {code}); `vestal logs` shows its last lines{hint}"
    return Explanation(ExitCause.ERROR, sentence)


def _out_of_memory(evidence: ContainerExitEvidence) -> bool:
    """Return whether the container ended because the kernel ended its main process for lack of memory."""
    return evidence.exit_code == KILLED and (evidence.oom_flag or _recent(evidence.oom_event_age_s))


def _recent(age_s: float | None) -> bool:
    return age_s is not None and abs(age_s) <= OOM_WINDOW_S
