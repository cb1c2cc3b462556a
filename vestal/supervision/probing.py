"""Run a child's probes: often while it starts, and at the policy's interval once it is up."""

from __future__ import annotations

import itertools
from collections.abc import Callable

from vestal.supervision.child_spec import ChildSpec
from vestal.supervision.clock import Clock
from vestal.supervision.health.health_check import HealthCheck, run_probe
from vestal.supervision.lifecycle.inputs import HealthProbed, Input, ReadyProbed
from vestal.supervision.lifecycle.probe import poll_delay

Send = Callable[[Input], None]


async def poll_ready_probe(spec: ChildSpec, clock: Clock, send: Send, run: int, pid: int) -> None:
    """Run the ready probe and send its result, again and again until cancelled.

    `send` may cancel this task, as it does for a result that ends the start.
    """
    assert spec.ready is not None
    for n in itertools.count():
        send(ReadyProbed(run, await run_probe(spec.ready, pid, spec.policy.probe.timeout_s)))
        await clock.sleep(poll_delay(n))


async def poll_health_probe(
    check: HealthCheck, interval_s: float, clock: Clock, send: Send, run: int, pid: int, at_once: bool = False
) -> None:
    """Ask for the child's health every `interval_s` and send the result, until cancelled."""
    while True:
        await clock.sleep(0.0 if at_once else interval_s)
        at_once = False
        send(HealthProbed(run, await check.ask(pid)))
