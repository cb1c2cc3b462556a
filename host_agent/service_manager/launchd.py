"""launchd: lists in ~/Library/LaunchAgents (a login session's) or /Library/LaunchDaemons (the machine's).

`bootstrap`, `bootout`, `kickstart` and `print`, as in launchctl(1); `load` and `unload` are its legacy.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from host_agent.service_manager import launchctl_answers, launchd_plist
from host_agent.service_manager.job_state import JobState
from host_agent.service_manager.launchctl_answers import LaunchctlAnswer
from host_agent.service_manager.unit import ALL, KEPT_ALIVE, JobSettings, Unit, Written
from vestal.config import Home
from vestal.platform.commands import Commands

TEMPLATES = Path(__file__).resolve().parents[2] / "deploy" / "launchd"
GONE_WITHIN_S = 180.0
LOOK_AGAIN_S = 0.2
TRY_AGAIN_AFTER_S = 1.0
ONLY_READABLE, BY_ALL = 0o600, 0o644


@dataclass(frozen=True)
class Place:
    """Where the lists are, and the domain that loads them. `user` is whom a daemon runs as."""

    folder: Path
    domain: str
    user: str = ""
    needs_root: bool = False


def agents(user_folder: Path, uid: int) -> Place:
    """LaunchAgents: from a login at the screen to the logout."""
    return Place(user_folder / "Library" / "LaunchAgents", f"gui/{uid}")


def daemons(user: str, uid: int) -> Place:
    """LaunchDaemons that run as `user`: from boot on, without a login. Only root may write and load them."""
    return Place(Path("/Library/LaunchDaemons"), "system", user, needs_root=uid != 0)


class Launchd:
    """The jobs of one home in one place."""

    name = "launchd"

    def __init__(
        self, home: Home, commands: Commands, place: Place, pause: Callable[[float], None] = time.sleep
    ) -> None:
        self._home, self._commands, self.place, self._pause = home, commands, place, pause

    @property
    def needs_root(self) -> bool:
        return self.place.needs_root

    @property
    def mode(self) -> int:
        """launchd reads a daemon's list as root; everybody may see it there, and nobody else change it."""
        return BY_ALL if self.place.user else ONLY_READABLE

    def units(self, names: tuple[str, ...], told: JobSettings) -> list[Unit]:
        return [Unit(name, self.path(name), self._text(name, told)) for name in names]

    def path(self, name: str) -> Path:
        return self.place.folder / f"{self._label(name)}.plist"

    def present(self) -> list[str]:
        return [name for name in ALL if self.path(name).exists()]

    def paths(self, name: str) -> list[Path]:
        return [self.path(name)]

    def written(self, name: str) -> Written:
        return launchd_plist.written(self.path(name).read_text())

    def refusal(self) -> str:
        return ""  # an absent GUI session shows at bootstrap, and what is written starts at the next login

    def reload(self) -> str:
        return ""  # launchd reads a list when it is loaded

    def state(self, name: str) -> JobState:
        done = self._commands.ask("launchctl", "print", self._target(name))
        return launchctl_answers.parse(done.exit_code, done.text)

    def load(self, name: str, changed: bool) -> str:
        """Loaded and running where it is kept alive; what is unchanged is left alone. A problem, if any."""
        if self.state(name).loaded:
            if not changed:
                return self._kickstart(name)
            if problem := self.unload(name):
                return problem
        # A disabled bit outlives the file, and makes bootstrap fail.
        self._commands.act("launchctl", "enable", self._target(name))
        return self._bootstrap(name) or self._kickstart(name)

    def unload(self, name: str) -> str:
        """Stopped in order, and forgotten by launchd. Nothing is wrong where it was not loaded."""
        command = ("launchctl", "bootout", self._target(name))
        done = self._commands.act(*command)
        answer = launchctl_answers.judge(done.exit_code, done.text)
        if answer is LaunchctlAnswer.NOT_LOADED or self._commands.dry_run:
            return ""
        if answer in (LaunchctlAnswer.DONE, LaunchctlAnswer.STOPPING, LaunchctlAnswer.RETRY) and self._gone(
            name
        ):
            return ""
        return self._sentence(
            LaunchctlAnswer.STOPPING if answer is LaunchctlAnswer.DONE else answer, command, done.text, name
        )

    def start(self) -> list[str]:
        """After a `stop`, or where launchd has let go of it."""
        return [problem for name in self.present() if (problem := self.load(name, changed=False))]

    def stop(self) -> list[str]:
        """launchd starts what is loaded: stopping for good means unloading, until the next login."""
        return [problem for name in self.present()[::-1] if (problem := self.unload(name))]

    def _bootstrap(self, name: str) -> str:
        command = ("launchctl", "bootstrap", self.place.domain, str(self.path(name)))
        for attempt in range(2):
            done = self._commands.act(*command)
            answer = launchctl_answers.judge(done.exit_code, done.text)
            if answer in (LaunchctlAnswer.DONE, LaunchctlAnswer.ALREADY):
                return ""
            if answer is not LaunchctlAnswer.RETRY:
                break
            if attempt == 0:
                self._pause(TRY_AGAIN_AFTER_S)  # right after a bootout it fails once
        return self._sentence(answer, command, done.text, name)

    def _kickstart(self, name: str) -> str:
        """Without -k: what runs goes on. A pass has its own times."""
        if name not in KEPT_ALIVE:
            return ""
        command = ("launchctl", "kickstart", self._target(name))
        done = self._commands.act(*command)
        answer = launchctl_answers.judge(done.exit_code, done.text)
        return (
            ""
            if answer in (LaunchctlAnswer.DONE, LaunchctlAnswer.ALREADY)
            else self._sentence(answer, command, done.text, name)
        )

    def _gone(self, name: str) -> bool:
        """bootout may come back before the job has ended."""
        for _ in range(int(GONE_WITHIN_S / LOOK_AGAIN_S)):
            if not self.state(name).loaded:
                return True
            self._pause(LOOK_AGAIN_S)
        return False

    def _sentence(self, answer: LaunchctlAnswer, command: tuple[str, ...], text: str, name: str) -> str:
        return launchctl_answers.sentence(
            answer, " ".join(command), text, self.place.domain, self._label(name)
        )

    def _target(self, name: str) -> str:
        return f"{self.place.domain}/{self._label(name)}"

    def _label(self, name: str) -> str:
        return f"dev.{self._home.label}.{name}"

    def _text(self, name: str, told: JobSettings) -> str:
        template = (TEMPLATES / f"{name}.plist").read_text()
        values = {
            "LABEL": self._label(name),
            "PROGRAM": told.program(name),
            "ENVIRONMENT": dict(told.environment),
            "CHECKOUT": str(told.checkout),
            "LOG": str(self._home.logs / f"{name}.log"),
            "STOP_WITHIN_S": told.stop_within_s,
            "RECOVER_EACH_S": told.recover_each_s,
        }
        return launchd_plist.fill(template, values, {"UserName": self.place.user} if self.place.user else {})
