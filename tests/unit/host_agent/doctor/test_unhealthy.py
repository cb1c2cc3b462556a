"""Which services of `GET /status` are a fault, and which only follow from another."""

from __future__ import annotations

from typing import Any

import pytest

from host_agent.doctor.services.unhealthy import assess_service, assess_services


def service(state: str, detail: str = "", expected: bool = True) -> dict[str, Any]:
    return {"state": state, "detail": detail, "expected": expected}


@pytest.mark.parametrize("state", ["ready", "busy", "starting", "absent"])
def test_doctor_reports_no_fault_for_a_healthy_or_starting_service(state: str):
    assert assess_service("mlx_server", service(state)) is None


def test_doctor_reports_no_fault_for_a_stopped_service_that_is_not_expected_to_run():
    assert assess_service("docker", service("stopped", expected=False)) is None


@pytest.mark.parametrize(
    ("state", "detail", "level", "remedy"),
    [
        ("failed", "exit code 78", "fault", "--reset"),
        ("open", "5 failed starts", "fault", "--reset"),
        ("degraded", "it answers 500", "fault", "--once"),
        ("stopped", "", "fault", "--once"),
        ("stopped", "stopped by hand", "note", "vestal up"),
    ],
)
def test_doctor_reports_an_unhealthy_service_with_level_and_remedy(
    state: str, detail: str, level: str, remedy: str
):
    found = assess_service("mlx_server", service(state, detail))
    assert found
    assert found.level == level
    assert remedy in found.remedy


def test_doctor_reports_a_failed_gateway_but_not_its_stopped_engine():
    services = {
        "mlx_server": service("failed"),
        "mlx_engine": service("stopped"),
        "nightly": service("degraded"),
    }
    assert [found.sentence.split()[0] for found in assess_services(services)] == ["mlx_server", "nightly"]


def test_doctor_advises_a_reset_if_the_breaker_of_the_engine_is_open():
    """The doctor once advised `vestal recover --once` for the gateway, which leaves the breaker open."""
    services = {
        "mlx_server": service("degraded", "five starts failed"),
        "mlx_engine": service("open", "five starts failed"),
    }
    (found,) = assess_services(services)
    assert found.sentence == "mlx_engine is no longer restarted (open)."
    assert "recover --reset" in found.remedy


@pytest.mark.parametrize(
    ("state", "breaker"), [("stopped", "open"), ("starting", "half_open"), ("backoff", "half_open")]
)
def test_doctor_advises_to_reset_a_breaker_that_is_open_or_half_open_for_a_trial_start(
    state: str, breaker: str
):
    """During the trial start of a half-open breaker, the doctor once advised `--once` again."""
    services = {
        "mlx_server": service("degraded", "five starts failed") | {"circuit_breaker_state": "closed"},
        "mlx_engine": service(state) | {"circuit_breaker_state": breaker},
    }
    (found,) = assess_services(services)
    assert found.sentence.startswith("mlx_engine has failed too often")
    assert breaker.replace("_", "-") in found.sentence
    assert "recover --reset" in found.remedy


def test_doctor_reports_no_fault_for_a_service_that_is_ready_after_its_trial_start():
    assert assess_service("mlx_engine", service("ready") | {"circuit_breaker_state": "half_open"}) is None


def test_doctor_reports_a_stopped_docker_but_not_its_stopped_containers():
    services = {
        "docker": service("stopped"),
        "orchestrator": service("stopped"),
        "nightly": service("stopped"),
    }
    assert [found.sentence.split()[0] for found in assess_services(services)] == ["docker"]
