"""What systemctl's exit codes and words mean."""

from collections.abc import Sequence

from host_agent.service_manager.job_state import JobState
from vestal.platform.commands import NOT_FOUND

PROPERTIES = "LoadState,ActiveState,SubState,MainPID,NRestarts,ExecMainCode,ExecMainStatus"
NO_MANAGER = (
    "failed to connect to bus",
    "not been booted with systemd",
    "failed to connect to user scope bus",
)
EXITED = "1"  # CLD_EXITED of waitid(2); 2 and 3 are deaths by signal


def has_no_manager(exit_code: int, text: str) -> bool:
    """Whether there is no systemd of this user's to talk to."""
    said = text.lower()
    return exit_code == NOT_FOUND or (exit_code != 0 and any(words in said for words in NO_MANAGER))


def no_manager(text: str) -> str:
    said = " ".join(text.split())
    return (
        f"No systemd of this user's answers ({said}), so nothing was installed. In a login session it does; "
        "after `su` or `sudo`, set XDG_RUNTIME_DIR=/run/user/$(id -u). In a container, or without systemd, "
        "`vestal up` runs everything without it."
    )


def parse(exit_code: int, text: str, last_exit: str = "") -> JobState:
    """The state that `systemctl --user show` tells. `last_exit` is for a timer, which has none of its own."""
    told = dict(line.partition("=")[::2] for line in text.splitlines())
    if exit_code != 0 or told.get("LoadState", "not-found") == "not-found":
        return JobState()
    pid, restarts = int(told.get("MainPID") or 0), int(told.get("NRestarts") or 0)
    code = told.get("ExecMainCode", "0")
    return JobState(
        loaded=True,
        state=f"{told.get('ActiveState', 'unknown')} ({told.get('SubState', 'unknown')})",
        pid=pid or None,
        runs=restarts + 1 if pid or restarts or code != "0" else None,
        last_exit=last_exit or _last_exit(code, told.get("ExecMainStatus", "0")),
    )


def failure(command: Sequence[str], exit_code: int, text: str) -> str:
    return f"`{' '.join(command)}`: {' '.join(text.split()) or f'exit code {exit_code}'}"


def _last_exit(code: str, status: str) -> str:
    if code in ("", "0"):
        return ""
    return status if code == EXITED else f"signal {status}"
