"""Make one try of a fault: send load, inject the fault, wait for the recovery, and return the outcome."""

from __future__ import annotations

import contextlib
import random
import time

from benchmarks.faults.fault import Fault
from benchmarks.faults.outcomes import Outcome, Try, outcome
from benchmarks.faults.probing import Prober
from benchmarks.faults.stack import FaultStack, until

BEFORE_S = 4.0
"""How many seconds the load runs before the fault, of which the first is not counted. A random time of up to
UP_TO_MORE_S is added.
"""
UP_TO_MORE_S = 1.0
AFTER_S = 4.0
"""How many seconds the stack is watched after its recovery, because the gateway's events also arrive late in
the journal.
"""
HELPED_WITHIN_S = 60.0


def run_try(stack: FaultStack, fault: Fault, draw: random.Random) -> Outcome:
    """Inject the fault once while requests are sent, wait for the recovery, and return the outcome. `draw`
    decides how long requests are sent before the fault.

    If the stack does not recover within the fault's limit, `vestal up` is run. Raises TimeoutError if the
    stack is not steady before the fault.
    """
    stack.until_steady(fault.replaced if fault.stable is None else fault.stable)
    since = stack.newest_entry()
    prober = Prober(stack.loads(fault.stream))
    from_at = time.time() + 1
    prober.start()
    try:
        time.sleep(BEFORE_S + draw.uniform(0, UP_TO_MORE_S))
        before = {name: stack.pid(name) for name in fault.replaced}
        made = fault.make(stack)

        def is_over() -> bool:
            return (
                stack.replaced(before) and prober.answered_since(fault.stream, made.at) and stack.is_whole()
            )

        had_help = not until(is_over, fault.limit_s)
        if had_help:
            stack.help()
            until(is_over, HELPED_WITHIN_S)
        time.sleep(AFTER_S)
        ended_at = time.time()
    finally:
        requests = prober.stop()
    entries = []
    with contextlib.suppress(OSError, ValueError):
        entries = [entry for _, entry in stack.entries(since)]
    observed = Try(
        fault.stream, from_at, made.at, ended_at, requests, entries, made.noticed_at, had_help=had_help
    )
    return outcome(observed, fault.notices, fault.default_actor)
