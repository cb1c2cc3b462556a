"""Assessing servers that do not answer."""

from __future__ import annotations

import pytest

from host_agent.doctor.unresponsive import hung
from host_agent.doctor.unresponsive.server_probe import UnresponsiveServer


@pytest.mark.parametrize(
    ("started_at", "woke_at", "expected"),
    [(100.0, 200.0, True), (300.0, 200.0, False), (None, 200.0, True), (100.0, None, False)],
)
def test_ran_before_wake_is_true_only_for_a_server_started_before_the_machine_woke(
    started_at: float | None, woke_at: float | None, expected: bool
):
    assert (
        hung.ran_before_wake(UnresponsiveServer("ollama", "http://x", "", 7, started_at), woke_at) is expected
    )


def test_doctor_advises_the_restart_command_for_a_server_hung_since_the_machine_slept():
    mlx_server = UnresponsiveServer("mlx_server", "http://x/health", "no answer within 5 s", 7, 100.0)
    assert "recover --once" in hung.assess_hung_since_sleep(mlx_server, 200.0).remedy
    ollama = UnresponsiveServer("ollama", "http://x/api/tags", "it answered 500", 7, 100.0)
    found = hung.assess_hung_since_sleep(ollama, 200.0)
    assert "`kill 7`, then `ollama serve`" in found.remedy
    assert "it answered 500" in found.evidence


@pytest.mark.parametrize("service", ["agent", "mlx_server"])
def test_doctor_advises_sigcont_for_a_server_suspended_by_sigstop(service: str):
    found = hung.assess_hung(UnresponsiveServer(service, "http://x", "", 7, 1.0, suspended=True))
    assert f"{service} (PID 7) is stopped (SIGSTOP)" in found.sentence
    assert "`kill -CONT 7` continues it" in found.remedy
    assert ("recover --once" in found.remedy) == (service == "agent"), "a pass replaces another one"
