"""Ollama that somebody else looks after: through its owner's own commands, and never started twice."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from host_agent.errors import NotPossible
from host_agent.services.ollama import installation
from host_agent.services.ollama.controller import OllamaController
from host_agent.services.ollama.ownership import Owner, OwnerKind
from tests.children import stand_in_ollama
from vestal.config import load
from vestal.platform.memory_headroom import Headroom
from vestal.supervision import Event, MemoryStateStore, ProbeResult, State

BREW = Owner(OwnerKind.BREW, "homebrew.mxcl.ollama")


class FixedSurvey:
    """Says that Ollama is `said`'s."""

    def __init__(self, said: Owner) -> None:
        self.said = said

    async def owner(self, ours: int | None, fresh: bool = False) -> Owner:
        return Owner(OwnerKind.OURS, pid=ours) if ours is not None else self.said

    async def taken_by(self) -> Owner | None:
        return self.said if self.said.runs else None

    async def menu_bar_app(self) -> None:
        return None

    def runners(self, server: int | None) -> tuple[int, ...]:
        return ()


class Kept:
    """A keeper, its journal, and a `brew` that notes what it is asked for."""

    def __init__(self, home: Path, folder: Path, port: int, said: Owner) -> None:
        self.survey, self.events = FixedSurvey(said), list[Event]()
        self.store, self.folder = MemoryStateStore(), folder
        environment = {"VESTAL_HOME": str(home), "OLLAMA_BASE_URL": f"http://127.0.0.1:{port}"}
        self.config = load({**environment, "VESTAL_SUPERVISION__BACKOFF_BASE_S": "0.01"}, cwd=home)
        self.keeper = self.another()

    def another(self, room: Headroom = Headroom()) -> OllamaController:  # noqa: B008 - frozen
        where, survey = installation.address(self.config.ollama.base_url), self.survey
        given: Any = (self.config, where, survey, self.store, self.events.append)
        return OllamaController(*given, ready=_ready, health=_ready, look=lambda: room)

    def brew(self, exit_code: int = 0) -> Path:
        noted, script = self.folder / "asked", self.folder / "brew"
        script.write_text(
            f'#!/bin/sh\necho "$@" >> {noted}\necho "Error: no service" >&2\nexit {exit_code}\n'
        )
        script.chmod(0o755)
        return noted


async def _ready(pid: int) -> ProbeResult:
    return ProbeResult(True)


@pytest.fixture
def kept(home: Path, tmp_path: Path, free_port: Callable[[], int], monkeypatch: pytest.MonkeyPatch) -> Kept:
    stand_in_ollama.install(tmp_path)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setenv("HOME", str(tmp_path))
    return Kept(home, tmp_path, free_port(), Owner(BREW.kind, BREW.name, pid=2**22 + 1))


async def test_restart_by_a_pass_asks_the_owner(kept: Kept):
    noted = kept.brew()
    await kept.keeper.through_owner("restart", "a recovery pass")
    assert noted.read_text() == "services restart ollama\n"
    assert not kept.keeper.has_one


async def test_owner_that_fails_is_told_with_its_last_line(kept: Kept):
    kept.brew(exit_code=1)
    with pytest.raises(NotPossible, match="services restart ollama` failed: Error: no service"):
        await kept.keeper.through_owner("restart", "a recovery pass")


async def test_start_by_a_pass_leaves_what_runs_by_now_alone(kept: Kept):
    noted = kept.brew()
    await kept.keeper.through_owner("start", "a recovery pass")
    assert not noted.exists()


async def test_stop_by_hand_goes_to_the_owner_and_so_does_the_start_after_it(kept: Kept):
    noted = kept.brew()
    kept.keeper.owner = kept.survey.said
    await kept.keeper.by_hand("stop")
    assert kept.keeper.stopped_by_hand
    kept.survey.said = Owner()  # Homebrew forgets a service that it has stopped
    next_agents = kept.another()
    assert next_agents.stopped_by_hand
    await next_agents.begin()
    assert not next_agents.has_one
    await next_agents.by_hand("start")
    assert noted.read_text() == "services stop ollama\nservices start ollama\n"
    assert not next_agents.stopped_by_hand


async def test_begin_leaves_what_is_registered_elsewhere_to_its_owner(kept: Kept):
    kept.survey.said = BREW  # Homebrew knows it, and it does not run
    await kept.keeper.begin()
    assert not kept.keeper.has_one
    assert not kept.survey.said.runs


async def test_server_of_ours_gives_way_to_one_that_took_its_port(kept: Kept):
    """Whoever opens the menu-bar app while ours is down wants that one: it is not fought over."""
    kept.survey.said = Owner(OwnerKind.APP, pid=2**22 + 1)
    await kept.keeper.start("a recovery pass")
    assert kept.keeper.status().state in (State.BACKOFF, State.OPEN)
    assert "the menu-bar app" in kept.keeper.status().detail
    assert await kept.keeper.gives_way()
    assert not kept.keeper.has_one
    assert not any(event.event == "child_started" for event in kept.events)
    assert not await kept.keeper.gives_way()


async def test_server_is_not_started_where_only_a_reboot_frees_memory(kept: Kept):
    kept.survey.said = Owner()
    keeper = kept.another(Headroom("80% is wired down", needs_reboot=True))
    await keeper.start("a recovery pass")
    assert "restart the machine" in keeper.status().detail
    assert not any(event.event == "child_started" for event in kept.events)
    await keeper.end()
