"""Run a child's probes: often while it starts, and at the policy's interval once it is up."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable

from vestal.supervision.child_spec import ChildSpec, Probe
from vestal.supervision.clock import Clock
from vestal.supervision.lifecycle.inputs import HealthProbed, Input, ReadyProbed
from vestal.supervision.lifecycle.probe import ProbeResult, poll_delay

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
    spec: ChildSpec, clock: Clock, send: Send, run: int, pid: int, at_once: bool = False
) -> None:
    """Run the health probe at the policy's interval and send its result, until cancelled."""
    assert spec.health is not None
    while True:
        await clock.sleep(0.0 if at_once else spec.policy.probe.interval_s)
        at_once = False
        send(HealthProbed(run, await run_probe(spec.health, pid, spec.policy.probe.timeout_s)))


async def run_probe(probe: Probe, pid: int, timeout_s: float) -> ProbeResult:
    """Return the probe's result. A probe that raises, or does not return in time, has failed."""
    try:
        async with asyncio.timeout(timeout_s):
            return await probe(pid)
    except TimeoutError:
        return ProbeResult(False, f"no answer within {timeout_s:g} s")
    except Exception as error:  # whatever a probe raises, the child has not answered
        return ProbeResult(False, str(error) or repr(error))
