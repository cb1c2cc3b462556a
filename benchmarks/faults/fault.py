"""Define what a fault is: how it is injected, which processes are replaced because of it, and what shows that
it was noticed.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.faults.outcomes import MLX, NOBODY, Entry, Notices
from benchmarks.processes.stack import is_alive

if TYPE_CHECKING:
    from benchmarks.faults.stack import FaultStack

LOOK_S = 0.002


@dataclass(frozen=True)
class Made:
    """The times at which a fault was injected (`at`) and at which Vestal noticed it (`noticed_at`), in
    seconds since 1970.

    `noticed_at` is None if only an event in the journal can show when the fault was noticed.
    """

    at: float
    noticed_at: float | None = None


@dataclass(frozen=True)
class Fault:
    """One row of the fault table: how a fault is injected, and what is observed of it.

    `make` injects the fault and, if it lasts for a time, ends it. `notices` recognizes the journal's event
    that shows that it was noticed. `stream` is the service whose recovery is measured. `replaced` names the
    processes that must have been replaced afterwards. `stable` names the processes that must have run for a
    while before the fault, so that no delay of an earlier restart is measured; None means those in
    `replaced`. `default_actor` is who heals the fault if the journal shows nobody. After `limit_s` seconds
    without recovery, `vestal up` is run.
    """

    name: str
    make: Callable[[FaultStack], Made]
    notices: Notices
    stream: str = MLX
    replaced: tuple[str, ...] = ()
    stable: tuple[str, ...] | None = None
    default_actor: str = NOBODY
    limit_s: float = 150.0


@dataclass(frozen=True)
class Group:
    """Faults that are injected, one after the other, into the same stack.

    `open_stack` starts the stack; its argument is the first of the stack's ports (0: free ones). `lacking`
    returns why the given fault cannot be injected on this machine; "" if it can. `tries_per_stack` is how
    often each fault is injected into a stack before a new stack replaces it; None means any number of times.
    """

    faults: tuple[Fault, ...]
    open_stack: Callable[[int], AbstractContextManager[FaultStack]]
    lacking: Callable[[Fault], str] = lambda fault: ""
    tries_per_stack: int | None = None


def signaled(name: str, number: signal.Signals) -> Callable[[FaultStack], Made]:
    """Return a function that sends the signal `number` to the process `name` of a stack."""

    def make(stack: FaultStack) -> Made:
        pid = stack.living_pid(name)
        at = time.time()
        os.kill(pid, number)
        return Made(at)

    return make


def event_of(component: str, *events: str) -> Notices:
    """Return a function that returns whether a journal entry has this component and one of these events."""

    def notices(entry: Entry) -> bool:
        return entry.component == component and entry.event in events

    return notices


def until_dead(pid: int, timeout_s: float) -> bool:
    """Wait until a process is dead, for at most `timeout_s` seconds. Return whether it is."""
    end = time.monotonic() + timeout_s
    while is_alive(pid):
        if time.monotonic() > end:
            return False
        time.sleep(LOOK_S)
    return True
