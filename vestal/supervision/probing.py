"""Run a child's probes: often while it starts, and at the policy's interval once it is up.

The results are inputs of the child's lifecycle, which decides what follows.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

from vestal.supervision.child_spec import ChildSpec
from vestal.supervision.clock import Clock
from vestal.supervision.health.health_check import HealthCheck, run_probe
from vestal.supervision.lifecycle.child_state import ActiveProbe, ChildState
from vestal.supervision.lifecycle.inputs import HealthProbed, Input, ReadyProbed
from vestal.supervision.lifecycle.probe import ProbeResult, poll_delay
from vestal.supervision.named_tasks import NamedTasks

Send = Callable[[Input], None]
_TASK = "probe"


class ChildProbes:
    """Runs the probe that a child's lifecycle asks for, as one of the child's `tasks`.

    `lifecycle` returns the child's present state, and `send` takes the results.
    """

    def __init__(
        self,
        spec: ChildSpec,
        clock: Clock,
        tasks: NamedTasks,
        lifecycle: Callable[[], ChildState],
        send: Send,
    ) -> None:
        self._spec, self._clock, self._tasks = spec, clock, tasks
        self._lifecycle, self._send = lifecycle, send
        self._health = (
            None if spec.health is None else HealthCheck(spec.health, spec.activity, spec.policy.probe, clock)
        )
        self._probed: tuple[int, ActiveProbe] = (0, ActiveProbe.NONE)

    def update(self) -> None:
        """Run the probe that the lifecycle asks for now, unless it runs already."""
        child = self._lifecycle()
        wanted = (child.run, child.active_probe)
        if wanted != self._probed:
            self._probed = wanted
            self._start()

    def forget(self) -> None:
        """Forget the unanswered probes: the process was replaced, or the machine has slept since."""
        if self._health is not None:
            self._health.forget()

    def check_now(self) -> None:
        """If the child is up, probe its health at once, and then at the usual interval."""
        if self._lifecycle().active_probe is ActiveProbe.HEALTH:
            self._start(at_once=True)

    async def check_health(self) -> ProbeResult | None:
        """Probe the health of the process until it has answered, or is known to be busy or hung.

        Return the last result; None if the child is not up or has no health probe, or if its process ended or
        was replaced meanwhile. A failure is not reported to the lifecycle: the caller decides what to do.
        """
        run, pid = self._lifecycle().run, self._lifecycle().pid
        if self._health is None or pid is None or not self._lifecycle().up:
            return None

        def is_current() -> bool:
            return self._lifecycle().run == run and self._lifecycle().up

        result = await self._health.settle(pid, is_current)
        if not is_current():
            return None
        if result.alive:
            self._send(HealthProbed(run, result))
        return result

    def _start(self, at_once: bool = False) -> None:
        self._tasks.cancel(_TASK)
        run, probe = self._probed
        pid = self._lifecycle().pid
        if pid is None:
            return
        if probe is ActiveProbe.READY and self._spec.ready is not None:
            self._tasks.run(_TASK, poll_ready_probe(self._spec, self._clock, self._send, run, pid))
        elif probe is ActiveProbe.HEALTH and self._health is not None:
            interval_s = self._spec.policy.probe.interval_s
            polling = poll_health_probe(self._health, interval_s, self._clock, self._send, run, pid, at_once)
            self._tasks.run(_TASK, polling)


async def poll_ready_probe(spec: ChildSpec, clock: Clock, send: Send, run: int, pid: int) -> None:
    """Run the ready probe until cancelled, every 50 ms at first and later every 500 ms. Pass each result to
    `send`.

    `pid` is the PID of the process. `run` is the number that the child's lifecycle gave to it; each result
    carries this number, so that a late result about an earlier process is ignored. `send` cancels this task
    when a result makes the child ready. The spec must have a ready probe.
    """
    assert spec.ready is not None
    for n in itertools.count():
        send(ReadyProbed(run, await run_probe(spec.ready, pid, spec.policy.probe.timeout_s)))
        await clock.sleep(poll_delay(n))


async def poll_health_probe(
    check: HealthCheck, interval_s: float, clock: Clock, send: Send, run: int, pid: int, at_once: bool = False
) -> None:
    """Every `interval_s`, until cancelled, ask the process `pid` for its health and pass the result to
    `send`.

    `run` is the number that the child's lifecycle gave to this process. Each result carries this number, so
    that a late result about an earlier process is ignored. A failure, or no answer in time, is a result too.
    The first question is asked after `interval_s`, or at once with `at_once`.
    """
    while True:
        await clock.sleep(0.0 if at_once else interval_s)
        at_once = False
        send(HealthProbed(run, await check.ask(pid)))
