"""Launchd: which launchctl commands follow which results."""

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


class ScriptedCommands(Commands):
    """Answers each launchctl verb from a list; the last result of a list is repeated."""

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
        remaining = self.answers.get(verb, [FINE])
        return remaining.pop(0) if len(remaining) > 1 else remaining[0]


@pytest.fixture
def pauses() -> list[float]:
    return []


def manager(tmp_path: Path, commands: Commands, pauses: list[float]) -> Launchd:
    home = load({"HOME": str(tmp_path)}, tmp_path).home
    return Launchd(home, commands, launchd.agents(tmp_path, 501), pauses.append)


def test_launchd_load_of_an_unknown_job_enables_bootstraps_and_kickstarts_it(tmp_path: Path, pauses):
    commands = ScriptedCommands(print=[UNKNOWN])
    assert manager(tmp_path, commands, pauses).load("agent", changed=True) == ""
    assert commands.verbs == ["enable", "bootstrap", "kickstart"]


def test_launchd_load_of_a_changed_job_waits_until_the_old_job_is_unloaded(tmp_path: Path, pauses):
    commands = ScriptedCommands(print=[LOADED, LOADED, LOADED, UNKNOWN], bootout=[STOPPING])
    assert manager(tmp_path, commands, pauses).load("agent", changed=True) == ""
    assert commands.verbs == ["bootout", "enable", "bootstrap", "kickstart"]
    assert pauses == [launchd.UNLOAD_POLL_S] * 2


def test_launchd_load_of_a_changed_job_that_never_stops_returns_a_problem(tmp_path: Path, pauses):
    commands = ScriptedCommands(print=[LOADED], bootout=[FINE])
    problem = manager(tmp_path, commands, pauses).load("agent", changed=True)
    assert "dev.vestal.agent has not stopped yet" in problem
    assert commands.verbs == ["bootout"], "a job that still runs is not bootstrapped again"
    assert sum(pauses) == pytest.approx(launchd.UNLOAD_TIMEOUT_S)


def test_launchd_bootstrap_that_fails_with_error_5_is_retried_once_after_a_delay(tmp_path: Path, pauses):
    commands = ScriptedCommands(print=[UNKNOWN], bootstrap=[INPUT_OUTPUT, FINE])
    assert manager(tmp_path, commands, pauses).load("recover", changed=True) == ""
    assert commands.verbs == ["enable", "bootstrap", "bootstrap"]
    assert pauses == [launchd.BOOTSTRAP_RETRY_DELAY_S]


def test_launchd_bootstrap_of_a_job_that_was_loaded_meanwhile_succeeds(tmp_path: Path, pauses):
    commands = ScriptedCommands(
        print=[UNKNOWN], bootstrap=[CommandResult(37, "Bootstrap failed: 37: Operation already in progress")]
    )
    assert manager(tmp_path, commands, pauses).load("agent", changed=False) == ""
    assert commands.verbs[-1] == "kickstart"


def test_launchd_start_of_loaded_jobs_kickstarts_only_jobs_with_keep_alive(tmp_path: Path, pauses):
    commands = ScriptedCommands(print=[LOADED])
    jobs = manager(tmp_path, commands, pauses)
    for name in ("agent", "recover"):
        jobs.path(name).parent.mkdir(parents=True, exist_ok=True)
        jobs.path(name).touch()
    assert jobs.start() == []
    assert commands.verbs == ["kickstart"]


def test_launchd_stop_unloads_the_recovery_job_before_the_agent(tmp_path: Path, pauses):
    """A recovery pass between the two would start the agent again."""
    commands = ScriptedCommands(print=[UNKNOWN])
    jobs = manager(tmp_path, commands, pauses)
    for name in ("agent", "recover"):
        jobs.path(name).parent.mkdir(parents=True, exist_ok=True)
        jobs.path(name).touch()
    assert jobs.stop() == []
    assert commands.verbs == ["bootout", "bootout"]
    assert commands.targets == ["gui/501/dev.vestal.recover", "gui/501/dev.vestal.agent"]


@pytest.mark.parametrize(
    ("answer", "is_missing"),
    [
        (CommandResult(112, "Bad request.\nCould not find domain for user gui: 501\n"), True),
        (CommandResult(125, "Could not print domain: 125: Domain does not support specified action\n"), True),
        (CommandResult(0, "gui/501 = {\n\ttype = login\n}\n"), False),
        (CommandResult(127, "launchctl: No such file or directory"), False),
    ],
)
def test_launchd_without_a_login_at_the_screen_says_that_jobs_cannot_be_loaded_yet(
    tmp_path: Path, pauses, answer: CommandResult, is_missing: bool
):
    reason = manager(tmp_path, ScriptedCommands(print=[answer]), pauses).no_session_reason()
    assert ("no domain gui/501" in reason and "--daemon" in reason) == is_missing
    home = load({"HOME": str(tmp_path)}, tmp_path).home
    daemons = Launchd(home, ScriptedCommands(print=[answer]), launchd.daemons("ada", 0))
    assert daemons.no_session_reason() == ""


def test_launchd_unload_without_a_login_at_the_screen_finds_no_job_to_stop(tmp_path: Path, pauses):
    """`vestal uninstall` over ssh once kept the files, because launchd has no jobs of a user who is away."""
    no_domain = CommandResult(125, "Boot-out failed: 125: Domain does not support specified action")
    commands = ScriptedCommands(print=[UNKNOWN], bootout=[no_domain])
    assert manager(tmp_path, commands, pauses).unload("agent") == ""
    loaded = ScriptedCommands(print=[LOADED], bootout=[no_domain])
    assert "nobody is logged in" in manager(tmp_path, loaded, pauses).unload("agent")


def test_launchd_command_that_does_not_exist_returns_exit_code_127():
    done = Commands().ask("no-such-program-at-all")
    assert done.exit_code == 127 and "no-such-program-at-all" in done.text
