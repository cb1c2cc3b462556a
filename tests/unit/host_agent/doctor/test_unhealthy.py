"""Which services of `GET /status` are a fault, and which only follow from another."""

from __future__ import annotations

from typing import Any

import pytest

from host_agent.doctor.services.unhealthy import assess_service, assess_services


def service(state: str, detail: str = "", expected: bool = True) -> dict[str, Any]:
    return {"state": state, "detail": detail, "expected": expected}


@pytest.mark.parametrize("state", ["ready", "busy", "starting", "absent"])
def test_assess_service_that_is_healthy_or_starting_is_none(state: str):
    assert assess_service("mlx_server", service(state)) is None


def test_assess_service_that_is_not_expected_is_none():
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
def test_assess_service_that_is_unhealthy_has_level_and_remedy(
    state: str, detail: str, level: str, remedy: str
):
    found = assess_service("mlx_server", service(state, detail))
    assert found
    assert found.level == level
    assert remedy in found.remedy


def test_assess_services_omits_the_engine_of_a_failed_gateway():
    services = {
        "mlx_server": service("failed"),
        "mlx_engine": service("stopped"),
        "nightly": service("degraded"),
    }
    assert [found.sentence.split()[0] for found in assess_services(services)] == ["mlx_server", "nightly"]


def test_assess_services_with_an_open_breaker_of_the_engine_advises_the_reset():
    """The doctor showed the degraded gateway, with `vestal recover --once`, which leaves a breaker open."""
    services = {
        "mlx_server": service("degraded", "five starts failed"),
        "mlx_engine": service("open", "five starts failed"),
    }
    (found,) = assess_services(services)
    assert found.sentence == "mlx_engine is no longer restarted (open)."
    assert "recover --reset" in found.remedy


def test_assess_service_whose_breaker_is_open_in_another_state_advises_the_reset():
    found = assess_service("mlx_engine", service("stopped") | {"circuit_breaker_state": "open"})
    assert found and "recover --reset" in found.remedy


def test_assess_services_omits_containers_without_docker():
    services = {
        "docker": service("stopped"),
        "orchestrator": service("stopped"),
        "nightly": service("stopped"),
    }
    assert [found.sentence.split()[0] for found in assess_services(services)] == ["docker"]
