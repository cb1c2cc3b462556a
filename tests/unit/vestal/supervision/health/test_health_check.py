"""When a health check looks at the process itself, and not only at its answer."""

from __future__ import annotations

import asyncio

from vestal.supervision import HealthCheck, ProbePolicy, ProbeResult, ProcessActivity, SystemClock

POLICY = ProbePolicy(interval_s=1.0, timeout_s=0.2, failures=3)


class Process:
    """A process that answers after `delay_s`, and counts how often its activity is read."""

    def __init__(self, delay_s: float) -> None:
        self.delay_s, self.reads = delay_s, 0
        self.check = HealthCheck(self._probe, self._activity, POLICY, SystemClock())

    async def _probe(self, pid: int) -> ProbeResult:
        await asyncio.sleep(self.delay_s)
        return ProbeResult(True)

    async def _activity(self, pid: int) -> ProcessActivity:
        self.reads += 1
        return ProcessActivity(cpu_s=float(self.reads))


async def test_health_check_of_a_process_that_answers_at_once_does_not_read_its_activity():
    process = Process(delay_s=0.0)
    assert (await process.check.ask(1)).ok
    assert process.reads == 0


async def test_unanswered_health_check_reads_the_process_activity_when_it_begins_and_when_it_gives_up():
    process = Process(delay_s=5.0)
    result = await process.check.ask(1)
    assert not result.answered
    assert process.reads == 2
    assert "1.0 s of CPU time" in result.detail


async def test_refused_health_check_gives_no_verdict_and_the_next_reads_activity_before_and_after_its_probe():
    process = Process(delay_s=0.0)

    async def refuse(pid: int) -> ProbeResult:
        return ProbeResult(False, "nothing listens there", answered=False)

    check = HealthCheck(refuse, process._activity, POLICY, SystemClock())
    assert (await check.ask(1)).hung is False
    assert process.reads == 1
    await check.ask(1)
    assert process.reads == 3
