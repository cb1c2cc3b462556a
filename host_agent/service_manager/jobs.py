"""The jobs that launchd and systemd run for Vestal, and the settings that they are rendered from. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

AGENT, RECOVER, SERVER = "agent", "recover", "server"
ALL_JOBS = (AGENT, RECOVER, SERVER)
AGENT_JOBS = (AGENT, RECOVER)
SERVER_ONLY_JOBS = (SERVER,)
KEPT_ALIVE = (AGENT, SERVER)  # restarted when they fail; RECOVER runs once, at each interval
ARGUMENTS = {AGENT: ("agent", "--managed"), RECOVER: ("recover", "--once"), SERVER: ("server",)}


@dataclass(frozen=True)
class JobSettings:
    """The values from which the files of all jobs are rendered.

    `environment` holds the environment variables of the jobs, PATH included, and no secret. `stop_within_s`
    is how many seconds the service manager gives the agent, or the MLX server if that is installed without
    the agent, to stop before it sends SIGKILL; a graceful stop takes less. `recover_each_s` is the interval
    between recovery passes, in seconds.
    """

    environment: Mapping[str, str]
    checkout: Path
    python: str
    stop_within_s: int
    recover_each_s: int

    def command(self, job: str) -> list[str]:
        """Return the command line of a job, with the full path of its Python."""
        return [self.python, "-m", "host_agent.cli.main", *ARGUMENTS[job]]


@dataclass(frozen=True)
class InstalledProgram:
    """The Python and the checkout that an installed job starts, as its file says. Either path may have been
    deleted since the installation.
    """

    python: Path
    checkout: Path


@dataclass(frozen=True)
class JobState:
    """What a service manager reports about one job, in the same terms for launchd and systemd.

    `runs` counts starts. `last_exit` is an exit code, a signal's name, or empty if the job never ended.
    """

    loaded: bool = False
    state: str = "not loaded"
    pid: int | None = None
    runs: int | None = None
    last_exit: str = ""

    @property
    def exit_code(self) -> int | None:
        """Return the code of the last exit, or None if there was none or a signal ended the job.

        launchd reports the code with its name, as in `78: EX_CONFIG`.
        """
        number = self.last_exit.partition(":")[0]
        return int(number) if number.isdigit() else None

    def describe(self) -> str:
        """Return the state in words: `running, PID 42, started 3 times, last exit 78: EX_CONFIG`."""
        words = [self.state]
        if self.pid:
            words.append(f"PID {self.pid}")
        if self.runs:
            words.append("started once" if self.runs == 1 else f"started {self.runs} times")
        if self.last_exit:
            words.append(f"last exit {self.last_exit}")
        return ", ".join(words)
