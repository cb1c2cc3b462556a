"""The launchd adapter: which command follows which answer."""

from __future__ import annotations

from pathlib import Path

import pytest

from host_agent.service_manager import launchd
from host_agent.service_manager.launchd import Launchd
from vestal.config import load
from vestal.platform.commands import CommandResult, Commands

FINE, UNKNOWN = (
    CommandResult(0, ""),
    CommandResult(113, 'Could not find service "x" in domain for user gui: 501'),
)
LOADED = CommandResult(0, "gui/501/x = {\n\tstate = running\n\tpid = 7\n}\n")
STOPPING = CommandResult(36, "Boot-out failed: 36: Operation now in progress")
INPUT_OUTPUT = CommandResult(5, "Bootstrap failed: 5: Input/output error")


class Told(Commands):
    """Answers each verb from a list, and its last answer again and again."""

    def __init__(self, **answers: list[CommandResult]) -> None:
        self.answers = answers
        self.verbs: list[str] = []
        self.targets: list[str] = []

    def ask(self, *command: str) -> CommandResult:
        return self._next(command[1])

    def act(self, *command: str) -> CommandResult:
        self.verbs.append(command[1])
        self.targets.append(command[2])
        return self._next(command[1])

    def _next(self, verb: str) -> CommandResult:
        left = self.answers.get(verb, [FINE])
        return left.pop(0) if len(left) > 1 else left[0]


@pytest.fixture
def pauses() -> list[float]:
    return []


def manager(tmp_path: Path, commands: Commands, pauses: list[float]) -> Launchd:
    home = load({"HOME": str(tmp_path)}, tmp_path).home
    return Launchd(home, commands, launchd.agents(tmp_path, 501), pauses.append)


def test_load_of_what_is_unknown_enables_bootstraps_and_kickstarts(tmp_path: Path, pauses):
    told = Told(print=[UNKNOWN])
    assert manager(tmp_path, told, pauses).load("agent", changed=True) == ""
    assert told.verbs == ["enable", "bootstrap", "kickstart"]


def test_load_of_a_changed_job_waits_until_it_is_gone(tmp_path: Path, pauses):
    told = Told(print=[LOADED, LOADED, LOADED, UNKNOWN], bootout=[STOPPING])
    assert manager(tmp_path, told, pauses).load("agent", changed=True) == ""
    assert told.verbs == ["bootout", "enable", "bootstrap", "kickstart"]
    assert pauses == [launchd.LOOK_AGAIN_S] * 2


def test_load_of_a_job_that_never_stops_gives_up_and_says_so(tmp_path: Path, pauses):
    told = Told(print=[LOADED], bootout=[FINE])
    problem = manager(tmp_path, told, pauses).load("agent", changed=True)
    assert "dev.vestal.agent has not stopped yet" in problem
    assert told.verbs == ["bootout"], "a job is not loaded twice"
    assert sum(pauses) == pytest.approx(launchd.GONE_WITHIN_S)


def test_bootstrap_with_error_5_is_tried_once_more_after_a_pause(tmp_path: Path, pauses):
    told = Told(print=[UNKNOWN], bootstrap=[INPUT_OUTPUT, FINE])
    assert manager(tmp_path, told, pauses).load("recover", changed=True) == ""
    assert told.verbs == ["enable", "bootstrap", "bootstrap"]
    assert pauses == [launchd.TRY_AGAIN_AFTER_S]


def test_bootstrap_that_another_command_did_meanwhile_is_fine(tmp_path: Path, pauses):
    told = Told(
        print=[UNKNOWN], bootstrap=[CommandResult(37, "Bootstrap failed: 37: Operation already in progress")]
    )
    assert manager(tmp_path, told, pauses).load("agent", changed=False) == ""
    assert told.verbs[-1] == "kickstart"


def test_start_of_what_is_loaded_only_kickstarts_what_is_kept_alive(tmp_path: Path, pauses):
    told = Told(print=[LOADED])
    jobs = manager(tmp_path, told, pauses)
    for name in ("agent", "recover"):
        jobs.path(name).parent.mkdir(parents=True, exist_ok=True)
        jobs.path(name).touch()
    assert jobs.start() == []
    assert told.verbs == ["kickstart"]


def test_stop_unloads_the_passes_first(tmp_path: Path, pauses):
    """Or a pass would start the agent again."""
    told = Told(print=[UNKNOWN])
    jobs = manager(tmp_path, told, pauses)
    for name in ("agent", "recover"):
        jobs.path(name).parent.mkdir(parents=True, exist_ok=True)
        jobs.path(name).touch()
    assert jobs.stop() == []
    assert told.verbs == ["bootout", "bootout"]
    assert told.targets == ["gui/501/dev.vestal.recover", "gui/501/dev.vestal.agent"]


def test_commands_that_are_not_there_are_told_and_not_raised():
    done = Commands().ask("no-such-program-at-all")
    assert done.exit_code == 127 and "no-such-program-at-all" in done.text
