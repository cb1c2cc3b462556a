"""Inject each fault several times, and pass the figures of each try to the caller's function `log` when the
try has ended. All faults of a group are tried once before any of them is tried again.
"""

from __future__ import annotations

import contextlib
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Collection, Iterable, Sequence

from benchmarks.faults import containers, on_host, sleeping, table
from benchmarks.faults.fault import Fault, Group
from benchmarks.faults.stack import FaultStack
from benchmarks.faults.tries import run_try
from benchmarks.figures import VESTAL, Figure
from benchmarks.scenario import Log, Scenario, Subjects, progress, run_alone

TRIES = 20
QUICK_TRIES = 3
GROUPS = (on_host.GROUP, sleeping.GROUP, containers.GROUP)
Done = Collection[tuple[str, int]]
"""The tries that need not be repeated, as (fault, number of the try)."""


def run_faults(
    log: Log,
    groups: Sequence[Group],
    tries: int,
    only: Collection[str] = (),
    done: Done = (),
    first_port: int = 0,
) -> None:
    """Inject each fault in `groups` as often as `tries` says, except for the tries in `done`, and pass the
    figures of each try to `log`. `only` has the names of the faults to inject (empty: all). `first_port` is
    the first of a stack's four ports; 0 means free ones.

    Try 1 of all faults of a group comes before try 2. A fault that cannot be injected on this machine is
    logged once, as a failure with its reason.
    """
    for group in groups:
        wanted = [fault for fault in group.faults if not only or fault.name in only]
        able = [fault for fault in wanted if not _refused(log, group, fault)]
        left = [(n, fault) for n in range(1, tries + 1) for fault in able if (fault.name, n) not in done]
        if left:
            _run_group(log, group, left, first_port)


def _refused(log: Log, group: Group, fault: Fault) -> bool:
    why = group.lacking(fault)
    if why:
        progress(f"{fault.name}: not measured here: {why}")
        log(table.failure(fault.name, table.SERVED, 1, why))
    return bool(why)


def _run_group(log: Log, group: Group, left: list[tuple[int, Fault]], first_port: int) -> None:
    """Make the tries `left`, pairs of a try's number and its fault. The faults are those of `group`, which
    starts the stack into which they are injected. `first_port` is the first of the stack's ports (0: free
    ones).

    A new stack is started once a fault was injected `group.tries_per_stack` times, and after a try that
    failed or in which the stack did not recover without help. If a stack does not start, the remaining tries
    are logged as failures with the reason.
    """
    while left:
        with contextlib.ExitStack() as opened:
            try:
                stack = opened.enter_context(group.open_stack(first_port))
            except (OSError, RuntimeError, ValueError, subprocess.SubprocessError) as error:
                for number, fault in left:
                    log(table.failure(fault.name, table.SERVED, number, _words(error)))
                progress(f"a stack for {left[0][1].name} did not come up: {_words(error)}")
                return
            made: Counter[str] = Counter()
            while left and made[left[0][1].name] != group.tries_per_stack:
                number, fault = left.pop(0)
                made[fault.name] += 1
                if not _logged(log, stack, number, fault):
                    break


def _logged(log: Log, stack: FaultStack, number: int, fault: Fault) -> bool:
    """Make a try and log its figures. Return whether the stack can be used for another try, which it cannot
    after a failure or if it did not recover without help.
    """
    began = time.monotonic()
    try:
        got = run_try(stack, fault, random.Random(f"{fault.name} {number}"))
    except (OSError, RuntimeError, ValueError, subprocess.SubprocessError) as error:
        log(table.failure(fault.name, table.SERVED, number, _words(error)))
        progress(f"{fault.name} {number}: {_words(error)}")
        return False
    for figure in table.figures(fault.name, number, got):
        log(figure)
    acted = ", ".join(got.actors)
    progress(
        f"{fault.name} {number}: noticed {_s(got.noticed_s)}, served again {_s(got.served_again_s)}, "
        f"{got.lost} lost, {got.cut_offs} cut off, acted: {acted} (took {time.monotonic() - began:.0f} s)"
    )
    for reason in got.reasons:
        progress(f"  lost: {reason[:300]}")
    return not got.by_person


def _words(error: Exception) -> str:
    return " ".join(str(error).split())[-300:] or type(error).__name__


def _s(seconds: float | None) -> str:
    return "never" if seconds is None else f"{seconds:.3f} s"


def done_tries(found: Iterable[Figure]) -> set[tuple[str, int]]:
    """Return (fault, number) of each finished try. A try is finished if there is a figure for the recovery of
    the service, which is logged last.
    """
    rows = ((figure.row.split("/"), figure) for figure in found if figure.row.startswith("faults/"))
    return {(parts[1], figure.round) for parts, figure in rows if parts[2] == table.SERVED}


def _run(log: Log, subjects: Subjects, rounds: int) -> None:
    if subjects.wants(VESTAL):
        run_faults(log, GROUPS, rounds, done=done_tries(subjects.have))


SCENARIO = Scenario(
    name="faults",
    about="each fault of one part: noticed after, served again after, requests lost, who had to act",
    quick_s=0,
    full_s=6 * 3600.0,
    run=_run,
    quick_rounds=QUICK_TRIES,
    full_rounds=TRIES,
    resumes_itself=True,
)

if __name__ == "__main__":
    run_alone(SCENARIO, sys.argv[1:])
