"""Describe how a process or a container ended, as a phrase for a sentence. Pure."""

from __future__ import annotations

import re
import signal
from typing import TypeGuard

from host_agent.incidents.entry import Entry
from host_agent.incidents.incident import Failure
from vestal.supervision.lifecycle.states import signal_name

SENT_BY_ANYBODY = frozenset(
    {int(signal.SIGKILL), int(signal.SIGTERM), int(signal.SIGINT), int(signal.SIGHUP)}
)
MAX_DETAIL = 160
_PLAIN_EXIT = re.compile(r"killed by [\w ]+|exit code \d+|ended, exit status unknown.*")
MAX_NUMBER = 2**32
_KILLED = re.compile(r"^killed by ")
_EXIT_CODE = re.compile(r" \((exit code \d+)\)")
HUNG = "hung"
LATE = "was not ready in time"
NOT_STARTED = "could not be started"
ENDED_UNSEEN = Failure("ended while no agent watched it")
KILLED_FOR_MEMORY = Failure("was killed", "SIGKILL by the kernel, for want of memory")
AGENT_ENDED = Failure("ended without being stopped", "killed, or it crashed")
MACHINE_RESTARTED = Failure("ended with the machine, which restarted without a shutdown of Vestal")

CONTAINER_VERBS = {
    "out_of_memory": "ran out of memory",
    "killed_by_request": "was killed",
    "unknown_kill": "was killed",
    "signal": "crashed",
    "error": "failed",
    "finished": "ended by itself",
}


def of_exit(entry: Entry, *, by_person: bool = False) -> Failure:
    """Return how a process ended, according to its event `child_exited`.

    `by_person` says that a person had asked to kill the process.
    """
    number, code = entry.fields.get("signal"), entry.fields.get("code")
    if _is_number(number) and number > 0:
        name = signal_name(number)
        if number == signal.SIGILL:
            return Failure("crashed", f"{name}: a library has an instruction that this processor lacks")
        if number not in SENT_BY_ANYBODY:
            return Failure("crashed", name)
        verb = "was killed" if number == signal.SIGKILL else "was terminated"
        return Failure(verb, f"{name} by a person" if by_person else f"{name}, sender unknown")
    if not _is_number(code):
        return Failure("ended", "exit status unknown: an earlier agent had started it")
    return Failure("ended by itself" if code == 0 else "failed", f"exit code {code}")


def of_container(entry: Entry) -> Failure:
    """Return how a container ended, according to its event `container_died`."""
    reason = entry.text("reason")
    cause = _KILLED.sub("by ", entry.cause) if reason == "killed_by_request" else entry.cause
    return Failure(CONTAINER_VERBS.get(reason, "ended"), detail(cause))


def says_more(cause: str) -> bool:
    """Return whether `cause`, the cause of a restart, says more than the exit code or signal with which the
    process ended; False if it is empty.
    """
    return bool(cause) and not _PLAIN_EXIT.fullmatch(cause)


def detail(text: str) -> str:
    """Return `text`, the cause of a failure, in a form that fits into a sentence: without control characters
    and final period, and cut to MAX_DETAIL characters.
    """
    text = "".join(each for each in " ".join(text.split()) if each.isprintable()).rstrip(".")
    text = _EXIT_CODE.sub(r", \1", text)
    return text if len(text) <= MAX_DETAIL else text[: MAX_DETAIL - 1].rstrip() + "…"


def _is_number(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < MAX_NUMBER
