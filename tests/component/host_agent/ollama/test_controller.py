"""Ollama with another owner: controlled by its owner's own commands, and never started twice."""

from __future__ import annotations

import os
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
from vestal.platform.processes.process_snapshot import ProcessSnapshot
from vestal.supervision import Event, MemoryStateStore, ProbeResult, State

BREW = Owner(OwnerKind.BREW, "homebrew.mxcl.ollama")


class FixedDiscovery:
    """Finds that Ollama belongs to `owner_found`."""

    def __init__(self, owner_found: Owner) -> None:
        self.owner_found = owner_found

    async def owner(self, own_pid: int | None, fresh: bool = False) -> Owner:
        return Owner(OwnerKind.OURS, pid=own_pid) if own_pid is not None else self.owner_found

    async def port_holder(self) -> Owner | None:
        return self.owner_found if self.owner_found.runs else None

    async def server_elsewhere(self) -> Owner | None:
        return self.owner_found if self.owner_found.kind is OwnerKind.ELSEWHERE else None

    async def menu_bar_app(self) -> None:
        return None

    def runners(self, server: int | None) -> tuple[ProcessSnapshot, ...]:
        return ()


class ControllerUnderTest:
    """A controller, its events, and a `brew` that notes its arguments."""

    def __init__(self, home: Path, folder: Path, port: int, owner_found: Owner) -> None:
        self.discovery, self.events = FixedDiscovery(owner_found), list[Event]()
        self.store, self.folder = MemoryStateStore(), folder
        environment = {"VESTAL_HOME": str(home), "OLLAMA_BASE_URL": f"http://127.0.0.1:{port}"}
        self.config = load({**environment, "VESTAL_SUPERVISION__BACKOFF_BASE_S": "0.01"}, cwd=home)
        self.controller = self.another()

    def another(self, headroom: Headroom = Headroom()) -> OllamaController:  # noqa: B008 - frozen
        address, discovery = installation.parse_address(self.config.ollama.base_url), self.discovery
        given: Any = (self.config, address, discovery, self.store, self.events.append)
        return OllamaController(*given, ready=_ready, health=_ready, headroom=lambda: headroom)

    def brew(self, exit_code: int = 0, error: str = "Error: no service", program: str = "brew") -> Path:
        noted, script = self.folder / "asked", self.folder / program
        script.write_text(f'#!/bin/sh\necho "$@" >> {noted}\necho "{error}" >&2\nexit {exit_code}\n')
        script.chmod(0o755)
        return noted


async def _ready(pid: int) -> ProbeResult:
    return ProbeResult(True)


@pytest.fixture
def under_test(
    home: Path, tmp_path: Path, free_port: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> ControllerUnderTest:
    stand_in_ollama.install(tmp_path)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setenv("HOME", str(tmp_path))
    return ControllerUnderTest(home, tmp_path, free_port(), Owner(BREW.kind, BREW.name, pid=2**22 + 1))


async def test_restart_of_a_homebrew_ollama_by_a_recovery_pass_runs_brew_services_restart(
    under_test: ControllerUnderTest,
):
    noted = under_test.brew()
    await under_test.controller.control_through_owner("restart", "a recovery pass")
    assert noted.read_text() == "services restart ollama\n"
    assert not under_test.controller.has_child


async def test_failed_brew_restart_of_ollama_raises_an_error_with_the_last_line_of_brews_output(
    under_test: ControllerUnderTest,
):
    under_test.brew(exit_code=1)
    with pytest.raises(NotPossible, match="services restart ollama` failed: Error: no service"):
        await under_test.controller.control_through_owner("restart", "a recovery pass")


async def test_start_of_a_homebrew_ollama_by_a_recovery_pass_does_nothing_if_it_already_runs(
    under_test: ControllerUnderTest,
):
    noted = under_test.brew()
    await under_test.controller.control_through_owner("start", "a recovery pass")
    assert not noted.exists()


async def test_manual_stop_and_later_start_of_a_homebrew_ollama_both_go_through_brew_services(
    under_test: ControllerUnderTest,
):
    noted = under_test.brew()
    under_test.controller.owner = under_test.discovery.owner_found
    await under_test.controller.manual_action("stop")
    assert under_test.controller.stopped_by_hand
    under_test.discovery.owner_found = Owner()  # Homebrew forgets a service that it has stopped
    next_agents = under_test.another()
    assert next_agents.stopped_by_hand
    await next_agents.adopt_or_start()
    assert not next_agents.has_child
    await next_agents.manual_action("start")
    assert noted.read_text() == "services stop ollama\nservices start ollama\n"
    assert not next_agents.stopped_by_hand


async def test_start_by_hand_of_a_launchd_ollama_that_a_login_has_loaded_again_does_not_load_it(
    under_test: ControllerUnderTest,
):
    """launchd refuses to load a job twice, and loads its jobs at each login."""
    noted = under_test.brew(program="launchctl")
    under_test.discovery.owner_found = Owner(OwnerKind.LAUNCHD, "org.x", pid=2**22 + 1)
    under_test.controller.owner = under_test.discovery.owner_found
    await under_test.controller.manual_action("stop")
    under_test.discovery.owner_found = Owner(OwnerKind.LAUNCHD, "org.x")
    await under_test.controller.manual_action("start")
    job = f"gui/{os.getuid()}/org.x"
    assert noted.read_text() == f"bootout {job}\nkickstart {job}\n"


async def test_start_of_a_launchd_ollama_that_starts_already_succeeds(under_test: ControllerUnderTest):
    noted = under_test.brew(37, "Kickstart failed: 37: Operation already in progress", "launchctl")
    under_test.discovery.owner_found = Owner(OwnerKind.LAUNCHD, "org.x")
    await under_test.controller.control_through_owner("start", "a recovery pass")
    assert noted.read_text() == f"kickstart gui/{os.getuid()}/org.x\n"


async def test_adopt_or_start_does_not_start_a_stopped_ollama_that_homebrew_manages(
    under_test: ControllerUnderTest,
):
    under_test.discovery.owner_found = BREW  # Homebrew knows it, and it does not run
    await under_test.controller.adopt_or_start()
    assert not under_test.controller.has_child
    assert not under_test.discovery.owner_found.runs


async def test_ollama_controller_gives_up_starting_if_another_server_holds_its_port(
    under_test: ControllerUnderTest,
):
    """A person who opens the menu-bar app while the agent's server is down wants the app's server."""
    under_test.discovery.owner_found = Owner(OwnerKind.APP, pid=2**22 + 1)
    await under_test.controller.start("a recovery pass")
    assert under_test.controller.status().state in (State.BACKOFF, State.OPEN)
    assert "the menu-bar app" in under_test.controller.status().detail
    assert await under_test.controller.yield_to_other_server()
    assert not under_test.controller.has_child
    assert not any(event.event == "child_started" for event in under_test.events)
    assert not await under_test.controller.yield_to_other_server()


async def test_ollama_controller_starts_no_server_if_the_same_user_runs_ollama_at_another_address(
    under_test: ControllerUnderTest,
):
    """The user starts a server at another address while the agent's server waits for its next restart."""
    under_test.discovery.owner_found = Owner(OwnerKind.ELSEWHERE, "PID 9", address="127.0.0.1:41434")
    await under_test.controller.start("a recovery pass")
    assert "(PID 9) listens at 127.0.0.1:41434" in under_test.controller.status().detail
    assert not any(event.event == "child_started" for event in under_test.events)
    assert await under_test.controller.yield_to_other_server()
    assert not under_test.controller.has_child


async def test_ollama_controller_does_not_start_ollama_if_only_a_reboot_frees_memory(
    under_test: ControllerUnderTest,
):
    under_test.discovery.owner_found = Owner()
    controller = under_test.another(Headroom("80% is wired down", needs_reboot=True))
    await controller.start("a recovery pass")
    assert "restart the machine" in controller.status().detail
    assert not any(event.event == "child_started" for event in under_test.events)
    await controller.stop()
