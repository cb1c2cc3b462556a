from __future__ import annotations

from vestal.supervision import ProbeResult, State
from vestal.supervision.lifecycle.probe import poll_delay


def test_delay_between_readiness_probes_grows_from_50_ms_to_500_ms():
    delays = [poll_delay(n) for n in range(40)]
    assert delays[0] == 0.05
    assert delays == sorted(delays)
    assert delays[-1] == 0.5


def test_probe_result_with_state_busy_or_loading_is_alive_although_the_probe_failed():
    assert ProbeResult(False, state=State.BUSY).alive
    assert ProbeResult(False, state=State.STARTING).alive
    assert not ProbeResult(False, state=State.DEGRADED).alive


def test_probe_result_with_state_loading_is_not_ready_although_the_probe_succeeded():
    assert not ProbeResult(True, state=State.STARTING).ready
    assert ProbeResult(True, state=State.DEGRADED).ready
