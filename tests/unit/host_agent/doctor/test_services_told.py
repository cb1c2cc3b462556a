"""Which rows of the agent's table are a fault, and which only follow from another."""

from __future__ import annotations

from typing import Any

import pytest

from host_agent.doctor.services.unhealthy import judge, unwell


def row(state: str, detail: str = "", expected: bool = True) -> dict[str, Any]:
    return {"state": state, "detail": detail, "expected": expected}


@pytest.mark.parametrize("state", ["ready", "busy", "starting", "absent"])
def test_row_that_is_well_or_on_its_way_is_no_finding(state: str):
    assert judge("mlx_server", row(state)) is None


def test_row_that_is_not_wanted_here_is_no_finding():
    assert judge("docker", row("stopped", expected=False)) is None


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
def test_row_that_is_unwell_is_told_with_its_remedy(state: str, detail: str, level: str, remedy: str):
    found = judge("mlx_server", row(state, detail))
    assert found
    assert found.level == level
    assert remedy in found.remedy


def test_engine_below_a_gateway_that_is_down_is_not_told_too():
    rows = {"mlx_server": row("failed"), "mlx_engine": row("stopped"), "nightly": row("degraded")}
    assert [found.sentence.split()[0] for found in unwell(rows)] == ["mlx_server", "nightly"]


def test_containers_without_their_engine_are_not_told_too():
    rows = {"docker": row("stopped"), "orchestrator": row("stopped"), "nightly": row("stopped")}
    assert [found.sentence.split()[0] for found in unwell(rows)] == ["docker"]
