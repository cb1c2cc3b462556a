"""systemd's user units, as in systemd.service(5) and systemd.timer(5): the counterpart of launchd's jobs."""

import os
from pathlib import Path

from host_agent.service_manager import systemctl_output, systemd_unit
from host_agent.service_manager.jobs import ALL_JOBS, RECOVER, InstalledProgram, JobSettings, JobState
from host_agent.service_manager.unit_files import UnitFile
from vestal.config import Home
from vestal.platform.commands import Commands

TEMPLATES = Path(__file__).resolve().parents[2] / "deploy" / "systemd"
SYSTEMCTL = ("systemctl", "--user")


class Systemd:
    """A ServiceManager for the jobs of one Vestal home, as systemd units of this user."""

    name = "systemd"
    file_mode = 0o600
    needs_root = False

    def __init__(self, home: Home, commands: Commands, folder: Path) -> None:
        self._home, self._commands, self._folder = home, commands, folder

    def render(self, jobs: tuple[str, ...], settings: JobSettings) -> list[UnitFile]:
        return [
            UnitFile(job, path, self._text(job, path, settings)) for job in jobs for path in self.paths(job)
        ]

    def paths(self, job: str) -> list[Path]:
        """Return the path of the job's service file and, for the recovery job, the path of its timer file."""
        service = self._folder / f"{self._home.label}-{job}.service"
        return [service, service.with_suffix(".timer")] if job == RECOVER else [service]

    def installed_jobs(self) -> list[str]:
        return [job for job in ALL_JOBS if self.paths(job)[0].exists()]

    def installed_program(self, job: str) -> InstalledProgram:
        return systemd_unit.installed_program(self.paths(job)[0].read_text())

    def unavailable_reason(self) -> str:
        result = self._commands.ask(*SYSTEMCTL, "show", "--property=Version")
        if systemctl_output.is_user_manager_missing(result.exit_code, result.text):
            return systemctl_output.user_manager_missing_sentence(result.text)
        return ""

    def no_session_reason(self) -> str:
        return ""  # without a user manager, `unavailable_reason` has refused the installation

    def reload(self) -> str:
        return self._systemctl("daemon-reload")

    def state(self, job: str) -> JobState:
        """Return the state of the job's service. The job of the recovery passes has a service and a timer:
        between two passes, when its service does not run, return the timer's state with the last exit of the
        service.
        """
        service = self._unit_state(self.paths(job)[0].name)
        if job != RECOVER or service.pid:
            return service
        return self._unit_state(self._enabled_unit(job), service.last_exit)

    def load(self, job: str, changed: bool) -> str:
        """Enable and start a job; restart it if it is loaded and its file has `changed`. Return the problem,
        or "" if there is none.
        """
        if problem := self._systemctl("enable", self._enabled_unit(job)):
            return problem
        verb = "restart" if changed and self.state(job).loaded else "start"
        return self._systemctl(verb, self._enabled_unit(job))

    def unload(self, job: str) -> str:
        """Stop a job gracefully and disable it; do nothing if it is not loaded. Return the problem, or "" if
        there is none.
        """
        if not self.state(job).loaded:
            return ""
        return self._systemctl("disable", "--now", self._enabled_unit(job))

    def start(self) -> list[str]:
        return self._for_each("start", self.installed_jobs())

    def stop(self) -> list[str]:
        """Stop every installed job, and return the problems. The recovery job is stopped first, because a
        recovery pass would start the agent again.
        """
        return self._for_each("stop", self.installed_jobs()[::-1])

    def is_lingering(self) -> bool:
        """Return True if this user's units run from boot on, without a login."""
        result = self._commands.ask("loginctl", "show-user", str(os.getuid()), "--property=Linger", "--value")
        return result.exit_code == 0 and result.text.strip() == "yes"

    def enable_lingering(self) -> bool:
        """Make this user's units run from boot on. Return True if logind accepted it; polkit may refuse."""
        return self._commands.act("loginctl", "enable-linger").exit_code == 0

    def _for_each(self, verb: str, jobs: list[str]) -> list[str]:
        return [problem for job in jobs if (problem := self._systemctl(verb, self._enabled_unit(job)))]

    def _systemctl(self, *words: str) -> str:
        """Run a systemctl command that changes something. Return the problem, or "" if there is none."""
        command = (*SYSTEMCTL, *words)
        result = self._commands.act(*command)
        if result.exit_code == 0:
            return ""
        return systemctl_output.problem_sentence(command, result.exit_code, result.text)

    def _unit_state(self, unit: str, last_exit: str = "") -> JobState:
        properties = f"--property={systemctl_output.SHOWN_PROPERTIES}"
        result = self._commands.ask(*SYSTEMCTL, "show", unit, properties)
        return systemctl_output.parse_show(result.exit_code, result.text, last_exit)

    def _enabled_unit(self, job: str) -> str:
        """Return the unit that is enabled and started: for the recovery pass its timer, else the service."""
        return self.paths(job)[-1].name

    def _text(self, job: str, path: Path, settings: JobSettings) -> str:
        template = (TEMPLATES / f"{job}{path.suffix}").read_text()
        values = {
            "HOME": systemd_unit.rest_of_line(str(self._home.root)),
            "PROGRAM": systemd_unit.command_line(settings.command(job)),
            "ENVIRONMENT": systemd_unit.environment_lines(settings.environment),
            "CHECKOUT": systemd_unit.rest_of_line(str(settings.checkout)),
            "LOG": systemd_unit.rest_of_line(str(self._home.logs / f"{job}.log")),
            "STOP_WITHIN_S": str(settings.stop_within_s),
            "RECOVER_EACH_S": str(settings.recover_each_s),
            "SERVICE": self.paths(job)[0].name,
        }
        return systemd_unit.fill(template, values)
