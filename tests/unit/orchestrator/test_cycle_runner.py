"""The record of a cycle."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from orchestrator import cycle_runner
from orchestrator.cycle_runner import CycleRunner


class Clock:
    """A clock whose wall time is set back by an hour after two seconds."""

    def __init__(self) -> None:
        self.calls = 0

    def monotonic(self) -> float:
        self.calls += 1
        return 100.0 if self.calls == 1 else 102.0

    def time(self) -> float:
        return 5000.0 if self.calls <= 1 else 5002.0 - 3600.0


async def nothing(*arguments: Any) -> Any:
    return ()


def container(added: list[tuple[float, float]]) -> Any:
    def add(started: float, finished: float, trigger: str, record: Any) -> int:
        added.append((started, finished))
        return 1

    return SimpleNamespace(
        config=SimpleNamespace(chat_model="m", embed_model="e"),
        board=SimpleNamespace(check_llm_services_health=nothing, on_change=None),
        report_to_host=lambda backends: _reported(),
        tasks=SimpleNamespace(waiting=nothing),
        folders=lambda: SimpleNamespace(by_agent={}, unreadable=""),
        search=SimpleNamespace(release_idle_memory=lambda: None),
        take_notices=list,
        cycles=SimpleNamespace(add=add),
    )


async def _reported() -> tuple[tuple[()], str]:
    return (), ""


async def test_cycle_during_which_the_clock_is_set_back_has_its_true_duration(
    monkeypatch: pytest.MonkeyPatch,
):
    """The record had a cycle of -3600 s."""
    monkeypatch.setattr(cycle_runner, "time", Clock())
    added: list[tuple[float, float]] = []
    record = await CycleRunner(container(added)).cycle("interval")
    assert record["duration_s"] == 2.0
    assert added == [(1400.0, 1402.0)]
