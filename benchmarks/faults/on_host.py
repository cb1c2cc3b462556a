"""Collect the faults of processes and resources on the host, ordered so that slow faults come last."""

from __future__ import annotations

import time

from benchmarks.faults import ollama, processes, resources
from benchmarks.faults.fault import Fault, Group, Made
from benchmarks.faults.outcomes import Entry
from benchmarks.faults.stack import FaultStack, can_mount


def upgrade(stack: FaultStack) -> Made:
    """Change the package `vestal` in the stack's copy of the code and run `vestal up`, which therefore
    replaces agent and gateway. Return the time at which `vestal up` began. The copy stays changed.
    """
    stack.change_code(next(stack.changes))
    at = time.time()
    stack.up()
    return Made(at)


def _change_is_named(entry: Entry) -> bool:
    return entry.event in ("agent_outdated", "gateway_outdated", "handover_began")


UPGRADE = Fault("upgrade", upgrade, _change_is_named, replaced=("mlx_server",), limit_s=180.0)
DISK = "only root of a Linux machine can mount a small disk"


def _order(fault: Fault) -> bool:
    return fault.name.endswith("_hang")  # each of these takes half a minute or more


TRIES_PER_STACK = 2
"""Ollama is restarted at most five times an hour, and two faults end it. With more tries, the later ones
would measure that limit."""

FAULTS = tuple(sorted((*processes.FAULTS, *ollama.FAULTS, *resources.FAULTS, UPGRADE), key=_order))
GROUP = Group(
    FAULTS,
    lambda first_port: FaultStack(first_port=first_port),
    lambda fault: DISK if fault.name == "disk_full" and not can_mount() else "",
    TRIES_PER_STACK,
)
