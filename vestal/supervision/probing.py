"""Asking the probes: quickly while a child starts, at leisure once it is up."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable

from vestal.supervision.child_spec import ChildSpec, Probe
from vestal.supervision.clock import Clock
from vestal.supervision.lifecycle.messages import HealthAnswered, Input, ReadyAnswered
from vestal.supervision.lifecycle.probe import ProbeResult, poll_delay

Send = Callable[[Input], None]


async def watch_ready(spec: ChildSpec, clock: Clock, send: Send, run: int, pid: int) -> None:
    """Asks `ready` until cancelled (which its own answer may bring about)."""
    assert spec.ready is not None
    for n in itertools.count():
        send(ReadyAnswered(run, await ask(spec.ready, pid, spec.policy.probe.timeout_s)))
        await clock.sleep(poll_delay(n))


async def watch_health(
    spec: ChildSpec, clock: Clock, send: Send, run: int, pid: int, at_once: bool = False
) -> None:
    """Asks `health` until cancelled."""
    assert spec.health is not None
    while True:
        await clock.sleep(0.0 if at_once else spec.policy.probe.interval_s)
        at_once = False
        send(HealthAnswered(run, await ask(spec.health, pid, spec.policy.probe.timeout_s)))


async def ask(probe: Probe, pid: int, timeout_s: float) -> ProbeResult:
    """The probe's answer; one that raises or does not come in time is a failure, with its reason."""
    try:
        async with asyncio.timeout(timeout_s):
            return await probe(pid)
    except TimeoutError:
        return ProbeResult(False, f"no answer within {timeout_s:g} s")
    except Exception as error:  # whatever the probe raises, the child did not answer
        return ProbeResult(False, str(error) or repr(error))
