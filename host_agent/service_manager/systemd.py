"""systemd's user units, as in systemd.service(5) and systemd.timer(5): the same meaning as launchd's jobs."""

import os
from pathlib import Path

from host_agent.service_manager import systemctl_answers, systemd_unit
from host_agent.service_manager.job_state import JobState
from host_agent.service_manager.unit import ALL, RECOVER, JobSettings, Unit, Written
from vestal.config import Home
from vestal.platform.commands import Commands

TEMPLATES = Path(__file__).resolve().parents[2] / "deploy" / "systemd"
SYSTEMCTL = ("systemctl", "--user")


class Systemd:
    """The jobs of one home."""

    name = "systemd"
    mode = 0o600
    needs_root = False

    def __init__(self, home: Home, commands: Commands, folder: Path) -> None:
        self._home, self._commands, self._folder = home, commands, folder

    def units(self, names: tuple[str, ...], told: JobSettings) -> list[Unit]:
        return [Unit(name, path, self._text(name, path, told)) for name in names for path in self.paths(name)]

    def paths(self, name: str) -> list[Path]:
        """The service's file, and its timer's where it has one."""
        service = self._folder / f"{self._home.label}-{name}.service"
        return [service, service.with_suffix(".timer")] if name == RECOVER else [service]

    def present(self) -> list[str]:
        return [name for name in ALL if self.paths(name)[0].exists()]

    def written(self, name: str) -> Written:
        return systemd_unit.written(self.paths(name)[0].read_text())

    def refusal(self) -> str:
        """Why nothing can be installed, before anything is written."""
        done = self._commands.ask(*SYSTEMCTL, "show", "--property=Version")
        if systemctl_answers.has_no_manager(done.exit_code, done.text):
            return systemctl_answers.no_manager(done.text)
        return ""

    def reload(self) -> str:
        return self._act("daemon-reload")

    def state(self, name: str) -> JobState:
        """Of the service; a pass between two times is as its timer is."""
        job = self._state(self.paths(name)[0].name)
        return job if name != RECOVER or job.pid else self._state(self._switch(name), job.last_exit)

    def load(self, name: str, changed: bool) -> str:
        """Enabled and running; what runs unchanged is left alone. The problem, if any."""
        if problem := self._act("enable", self._switch(name)):
            return problem
        return self._act("restart" if changed and self.state(name).loaded else "start", self._switch(name))

    def unload(self, name: str) -> str:
        """Stopped in order, and not started again. Nothing is wrong where it was not loaded."""
        if not self.state(name).loaded:
            return ""
        return self._act("disable", "--now", self._switch(name))

    def start(self) -> list[str]:
        return self._each("start", self.present())

    def stop(self) -> list[str]:
        """Until the next login or boot; the passes first, or one would start the agent again."""
        return self._each("stop", self.present()[::-1])

    def lingers(self) -> bool:
        """Whether this user's units run from boot on, without a login."""
        done = self._commands.ask("loginctl", "show-user", str(os.getuid()), "--property=Linger", "--value")
        return done.exit_code == 0 and done.text.strip() == "yes"

    def linger(self) -> bool:
        """Asks for it; polkit may refuse."""
        return self._commands.act("loginctl", "enable-linger").exit_code == 0

    def _each(self, verb: str, names: list[str]) -> list[str]:
        return [problem for name in names if (problem := self._act(verb, self._switch(name)))]

    def _act(self, *words: str) -> str:
        command = (*SYSTEMCTL, *words)
        done = self._commands.act(*command)
        return "" if done.exit_code == 0 else systemctl_answers.failure(command, done.exit_code, done.text)

    def _state(self, unit: str, last_exit: str = "") -> JobState:
        done = self._commands.ask(*SYSTEMCTL, "show", unit, f"--property={systemctl_answers.PROPERTIES}")
        return systemctl_answers.parse(done.exit_code, done.text, last_exit)

    def _switch(self, name: str) -> str:
        """The unit that is enabled and started: a timer starts its service."""
        return self.paths(name)[-1].name

    def _text(self, name: str, path: Path, told: JobSettings) -> str:
        template = (TEMPLATES / f"{name}{path.suffix}").read_text()
        values = {
            "HOME": systemd_unit.plain(str(self._home.root)),
            "PROGRAM": systemd_unit.command(told.program(name)),
            "ENVIRONMENT": systemd_unit.environment(told.environment),
            "CHECKOUT": systemd_unit.plain(str(told.checkout)),
            "LOG": systemd_unit.plain(str(self._home.logs / f"{name}.log")),
            "STOP_WITHIN_S": str(told.stop_within_s),
            "RECOVER_EACH_S": str(told.recover_each_s),
            "SERVICE": self.paths(name)[0].name,
        }
        return systemd_unit.fill(template, values)
