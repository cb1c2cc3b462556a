"""`vestal install`: the order in which it writes files, replaces an agent and loads jobs, and what a failure
of each of these steps leaves behind.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from host_agent.cli.install import install, unfinished
from host_agent.errors import NotInstalled
from host_agent.service_manager import launchd
from host_agent.service_manager.jobs import AGENT_JOBS, JobSettings
from host_agent.service_manager.launchd import Launchd
from host_agent.service_manager.systemd import Systemd
from vestal.config import Config, load
from vestal.platform.commands import CommandResult, Commands

LAUNCHD_STATE = "gui/501/x = {\n\tstate = running\n\tpid = 42\n}\n"
SYSTEMD_STATE = "LoadState=loaded\nActiveState=active\nSubState=running\nMainPID=42\n"
NO_DOMAIN = CommandResult(112, "Bad request.\nCould not find domain for user gui: 501\n")
DISABLED = CommandResult(119, "Bootstrap failed: 119: Service is disabled\n")


class Tools(Commands):
    """launchctl and systemctl for running jobs. A command that contains a text in `refused` gets that result,
    and one that contains `interrupted` ends `vestal install` as Ctrl-C does.
    """

    def __init__(self, refused: dict[str, CommandResult] | None = None, interrupted: str = "") -> None:
        self.refused, self.interrupted = refused or {}, interrupted
        self.log: list[str] = []
        self.unloaded: set[str] = set()

    def ask(self, *command: str) -> CommandResult:
        if command[0] != "launchctl":
            return CommandResult(0, SYSTEMD_STATE)
        if command[2] in self.unloaded:
            return CommandResult(113, "Could not find service")
        return self.refused.get(" ".join(command), CommandResult(0, LAUNCHD_STATE))

    def act(self, *command: str) -> CommandResult:
        line = " ".join(command)
        if self.interrupted and self.interrupted in line:
            raise KeyboardInterrupt
        self.log.append(line)
        if command[1] == "bootout":
            self.unloaded.add(command[2])
        return next((result for text, result in self.refused.items() if text in line), CommandResult(0, ""))


class Machine:
    """A user's machine on which an agent runs that was started by hand. `log` has what happened to it."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.config: Config = load({"HOME": str(folder)}, folder)
        self.config.home.prepare()
        self.log: list[str] = []

        async def stop_watchdog(home: object) -> None:
            self.log.append("watchdog stopped")

        running = SimpleNamespace(running=lambda home: SimpleNamespace(pid=4242))
        monkeypatch.setattr(install, "single_instance", running)
        monkeypatch.setattr(install, "stop_watchdog", stop_watchdog)
        monkeypatch.setattr(install, "kill_agent", lambda identity: self.log.append("agent killed"))
        monkeypatch.setattr(install, "ensure_running", lambda config: self.log.append("agent started"))

    def install(self, kind: str, tools: Tools, python: str = "/new/python") -> None:
        settings = JobSettings({"PATH": "/bin"}, self.folder, python, 60, 300)
        home = self.config.home
        manager = (
            Systemd(home, tools, self.folder / "units")
            if kind == "systemd"
            else Launchd(home, tools, launchd.agents(self.folder, 501), sleep=lambda seconds: None)
        )
        files = manager.render(AGENT_JOBS, settings)
        install._install([manager], manager, AGENT_JOBS, files, self.config, tools)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(tmp_path, monkeypatch)


def test_install_that_cannot_write_its_files_leaves_the_running_agent_alone(machine: Machine):
    """It once killed the agent first, so nothing ran any more, and nothing was installed."""
    (machine.folder / "units").write_text("not a folder")
    tools = Tools()
    with pytest.raises(OSError):
        machine.install("systemd", tools)
    assert (machine.log, tools.log) == ([], [])


def test_install_without_a_login_at_the_screen_writes_its_files_and_leaves_the_running_agent_alone(
    machine: Machine,
):
    tools = Tools({"launchctl print gui/501": NO_DOMAIN})
    with pytest.raises(NotInstalled, match="no domain gui/501.*vestal install --daemon"):
        machine.install("launchd", tools)
    assert (machine.log, tools.log) == ([], [])
    assert len(list((machine.folder / "Library" / "LaunchAgents").iterdir())) == len(AGENT_JOBS)
    assert not unfinished.exists(machine.config.home), "the next login loads the files as they are"


def test_install_whose_agent_job_cannot_be_loaded_starts_an_agent_again_and_loads_the_other_jobs(
    machine: Machine,
):
    tools = Tools(
        {"bootstrap gui/501 " + str(machine.folder / "Library/LaunchAgents/dev.vestal.agent"): DISABLED}
    )
    with pytest.raises(NotInstalled, match="keeps dev.vestal.agent disabled.* The agent was started again"):
        machine.install("launchd", tools)
    assert machine.log[-1] == "agent started"
    assert machine.log.count("agent killed") == 1
    assert any("bootstrap" in line and "dev.vestal.recover" in line for line in tools.log)


@pytest.mark.parametrize(
    ("kind", "interrupted", "completed"),
    [
        (
            "systemd",
            "daemon-reload",
            ["daemon-reload", "restart vestal-agent.service", "restart vestal-recover"],
        ),
        ("launchd", "bootout", ["bootout gui/501/dev.vestal.agent", "bootout gui/501/dev.vestal.recover"]),
    ],
)
def test_install_after_an_interrupted_one_loads_every_job_anew(
    machine: Machine, kind: str, interrupted: str, completed: list[str]
):
    """The second one once found that the files had not changed, so the jobs kept their old settings."""
    machine.install(kind, Tools(), python="/old/python")
    with pytest.raises(KeyboardInterrupt):
        machine.install(kind, Tools(interrupted=interrupted))
    assert unfinished.exists(machine.config.home)
    second, third = Tools(), Tools()
    machine.install(kind, second)
    assert [text for text in completed if not any(text in line for line in second.log)] == []
    assert not unfinished.exists(machine.config.home)
    machine.install(kind, third)
    assert not any(text in line for line in third.log for text in completed)


def test_install_after_an_install_that_could_not_load_a_job_loads_every_job_anew(machine: Machine):
    refused = {"--user restart vestal-agent": CommandResult(1, "Job failed")}
    with pytest.raises(NotInstalled, match="Job failed"):
        machine.install("systemd", Tools(refused))
    second = Tools()
    machine.install("systemd", second)
    assert "systemctl --user restart vestal-agent.service" in second.log
