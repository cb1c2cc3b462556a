"""launchd: property lists in ~/Library/LaunchAgents (jobs of one login) or /Library/LaunchDaemons (jobs of
the machine).

This module runs `bootstrap`, `bootout`, `kickstart` and `print` of launchctl(1), since `load` and `unload`
are legacy.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from host_agent.service_manager import launchctl_output, launchd_plist
from host_agent.service_manager.jobs import ALL_JOBS, KEPT_ALIVE, InstalledProgram, JobSettings, JobState
from host_agent.service_manager.launchctl_output import LaunchctlOutcome
from host_agent.service_manager.unit_files import UnitFile
from vestal.config import Home
from vestal.platform.commands import Commands

TEMPLATES = Path(__file__).resolve().parents[2] / "deploy" / "launchd"
UNLOAD_TIMEOUT_S = 180.0
UNLOAD_POLL_S = 0.2
BOOTSTRAP_RETRY_DELAY_S = 1.0
OWNER_ONLY, READABLE_BY_ALL = 0o600, 0o644


@dataclass(frozen=True)
class Domain:
    """A launchd domain: its name `target`, as in `launchctl bootstrap gui/501`, and the folder of its
    property lists.

    `user` is the user that a LaunchDaemon runs as; it is empty for LaunchAgents. `needs_root` is True if this
    process lacks the rights to change the domain's jobs.
    """

    folder: Path
    target: str
    user: str = ""
    needs_root: bool = False


def agents(user_folder: Path, uid: int) -> Domain:
    """Return the domain of the LaunchAgents of the user `uid`, which run from a login at the screen to the
    logout. `user_folder` is the user's home folder.
    """
    return Domain(user_folder / "Library" / "LaunchAgents", f"gui/{uid}")


def daemons(user: str, uid: int) -> Domain:
    """Return the domain of the LaunchDaemons. These jobs run from boot on, under the account named `user`,
    and only root may change them. `uid` is the ID of the user that this process runs as; unless it is 0, the
    ID of root, `needs_root` is True.
    """
    return Domain(Path("/Library/LaunchDaemons"), "system", user, needs_root=uid != 0)


class Launchd:
    """A ServiceManager for the jobs of one Vestal home in one launchd domain."""

    name = "launchd"

    def __init__(
        self, home: Home, commands: Commands, domain: Domain, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self._home, self._commands, self._domain, self._sleep = home, commands, domain, sleep

    @property
    def needs_root(self) -> bool:
        return self._domain.needs_root

    @property
    def file_mode(self) -> int:
        """Return the permissions of the property lists. All users may read those of LaunchDaemons, and only
        the owner those of LaunchAgents.
        """
        return READABLE_BY_ALL if self._domain.user else OWNER_ONLY

    def render(self, jobs: tuple[str, ...], settings: JobSettings) -> list[UnitFile]:
        return [UnitFile(job, self.path(job), self._text(job, settings)) for job in jobs]

    def path(self, job: str) -> Path:
        """Return the path of a job's property list."""
        return self._domain.folder / f"{self._label(job)}.plist"

    def paths(self, job: str) -> list[Path]:
        return [self.path(job)]

    def installed_jobs(self) -> list[str]:
        return [job for job in ALL_JOBS if self.path(job).exists()]

    def installed_program(self, job: str) -> InstalledProgram:
        return launchd_plist.installed_program(self.path(job).read_text())

    def unavailable_reason(self) -> str:
        return (
            ""  # without a login at the screen, the files can be written, and the jobs start at the next one
        )

    def no_session_reason(self) -> str:
        """Return why no job can be loaded before the next login; "" if jobs can be loaded now.

        launchd has the domain `gui/UID` only while the user is logged in at the screen. Without that, as over
        ssh, every bootstrap fails.
        """
        if self._domain.user:
            return ""  # the system's domain exists at all times
        command = ("launchctl", "print", self._domain.target)
        result = self._commands.ask(*command)
        outcome = launchctl_output.classify(result.exit_code, result.text)
        if outcome is not LaunchctlOutcome.NO_SESSION:
            return ""
        return launchctl_output.problem_sentence(
            outcome, " ".join(command), result.text, self._domain.target, self._home.label
        )

    def reload(self) -> str:
        return ""  # launchd reads a property list when it loads the job

    def state(self, job: str) -> JobState:
        result = self._commands.ask("launchctl", "print", self._target(job))
        return launchctl_output.parse_print(result.exit_code, result.text)

    def load(self, job: str, changed: bool) -> str:
        """Load a job, and start it if launchd is to keep it running (`KeepAlive`). If its property list has
        `changed`, unload a loaded job first. Return a sentence about a problem, or "" if there is none.
        """
        if self.state(job).loaded:
            if not changed:
                return self._kickstart(job)
            if problem := self.unload(job):
                return problem
        # The disabled flag outlives the file, and makes bootstrap fail.
        self._commands.act("launchctl", "enable", self._target(job))
        return self._bootstrap(job) or self._kickstart(job)

    def unload(self, job: str) -> str:
        """Stop a job gracefully and wait until it is unloaded; do nothing if it is not loaded. Return a
        sentence about a problem, or "" if there is none.
        """
        command = ("launchctl", "bootout", self._target(job))
        result = self._commands.act(*command)
        outcome = launchctl_output.classify(result.exit_code, result.text)
        if outcome is LaunchctlOutcome.NOT_LOADED or self._commands.dry_run:
            return ""
        if outcome is LaunchctlOutcome.NO_SESSION and not self.state(job).loaded:
            return ""  # nobody is logged in at the screen, so launchd has no jobs of this user
        is_stopping = outcome in (LaunchctlOutcome.DONE, LaunchctlOutcome.STOPPING, LaunchctlOutcome.RETRY)
        if is_stopping and self._wait_until_unloaded(job):
            return ""
        if outcome is LaunchctlOutcome.DONE:
            outcome = LaunchctlOutcome.STOPPING
        return self._problem(outcome, command, result.text, job)

    def start(self) -> list[str]:
        return [problem for job in self.installed_jobs() if (problem := self.load(job, changed=False))]

    def stop(self) -> list[str]:
        """Unload every installed job, because launchd restarts loaded jobs. The jobs are loaded again at the
        next login. Return a sentence for each job that could not be unloaded.

        The job of the recovery passes is unloaded first, because a pass would start the agent again.
        """
        return [problem for job in self.installed_jobs()[::-1] if (problem := self.unload(job))]

    def _bootstrap(self, job: str) -> str:
        """Load a job. Right after a bootout launchd refuses once, so try a second time after a delay. Return
        a sentence about a problem, or "" if there is none.
        """
        command = ("launchctl", "bootstrap", self._domain.target, str(self.path(job)))
        for attempt in range(2):
            result = self._commands.act(*command)
            outcome = launchctl_output.classify(result.exit_code, result.text)
            if outcome in (LaunchctlOutcome.DONE, LaunchctlOutcome.ALREADY):
                return ""
            if outcome is not LaunchctlOutcome.RETRY:
                break
            if attempt == 0:
                self._sleep(BOOTSTRAP_RETRY_DELAY_S)
        return self._problem(outcome, command, result.text, job)

    def _kickstart(self, job: str) -> str:
        """Start a job that launchd keeps alive, unless it runs already. The job of the recovery passes is not
        started, because it runs at an interval. Return a sentence about a problem, or "" if there is none.
        """
        if job not in KEPT_ALIVE:
            return ""
        command = ("launchctl", "kickstart", self._target(job))
        result = self._commands.act(*command)
        outcome = launchctl_output.classify(result.exit_code, result.text)
        if outcome in (LaunchctlOutcome.DONE, LaunchctlOutcome.ALREADY):
            return ""
        return self._problem(outcome, command, result.text, job)

    def _wait_until_unloaded(self, job: str) -> bool:
        """Return True once the job is unloaded, or False after UNLOAD_TIMEOUT_S: bootout may return before
        the job has ended.
        """
        for _ in range(int(UNLOAD_TIMEOUT_S / UNLOAD_POLL_S)):
            if not self.state(job).loaded:
                return True
            self._sleep(UNLOAD_POLL_S)
        return False

    def _problem(self, outcome: LaunchctlOutcome, command: tuple[str, ...], text: str, job: str) -> str:
        domain, label = self._domain.target, self._label(job)
        return launchctl_output.problem_sentence(outcome, " ".join(command), text, domain, label)

    def _target(self, job: str) -> str:
        return f"{self._domain.target}/{self._label(job)}"

    def _label(self, job: str) -> str:
        return f"dev.{self._home.label}.{job}"

    def _text(self, job: str, settings: JobSettings) -> str:
        template = (TEMPLATES / f"{job}.plist").read_text()
        values = {
            "LABEL": self._label(job),
            "PROGRAM": settings.command(job),
            "ENVIRONMENT": dict(settings.environment),
            "CHECKOUT": str(settings.checkout),
            "LOG": str(self._home.logs / f"{job}.log"),
            "STOP_WITHIN_S": settings.stop_within_s,
            "RECOVER_EACH_S": settings.recover_each_s,
        }
        extra_keys = {"UserName": self._domain.user} if self._domain.user else {}
        return launchd_plist.fill(template, values, extra_keys)
