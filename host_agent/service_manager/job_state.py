"""What a service manager says of one job, in the same words for launchd and systemd."""

from dataclasses import dataclass


@dataclass(frozen=True)
class JobState:
    """`runs` counts starts; `last_exit` is a code, a signal's name, or empty where it never ended."""

    loaded: bool = False
    state: str = "not loaded"
    pid: int | None = None
    runs: int | None = None
    last_exit: str = ""

    @property
    def exit_code(self) -> int | None:
        """Of its last end; None where it never ended, or by a signal. launchd says `78: EX_CONFIG`."""
        number = self.last_exit.partition(":")[0]
        return int(number) if number.isdigit() else None


def in_words(job: JobState) -> str:
    """`running, PID 42, started 3 times, last exit 78: EX_CONFIG`."""
    words = [job.state]
    if job.pid:
        words.append(f"PID {job.pid}")
    if job.runs:
        words.append("started once" if job.runs == 1 else f"started {job.runs} times")
    if job.last_exit:
        words.append(f"last exit {job.last_exit}")
    return ", ".join(words)
