"""Interpret the exit codes and the output of systemctl. Pure."""

from collections.abc import Sequence

from host_agent.service_manager.jobs import JobState
from vestal.platform.commands import NOT_FOUND

SHOWN_PROPERTIES = "LoadState,ActiveState,SubState,MainPID,NRestarts,ExecMainCode,ExecMainStatus"
NO_USER_MANAGER = (
    "failed to connect to bus",
    "not been booted with systemd",
    "failed to connect to user scope bus",
)
CLD_EXITED = "1"  # waitid(2): 1 is an exit, 2 and 3 are deaths by signal


def is_user_manager_missing(exit_code: int, text: str) -> bool:
    """Return True if systemctl is not installed, or no systemd of this user answers it."""
    message = text.lower()
    return exit_code == NOT_FOUND or (exit_code != 0 and any(words in message for words in NO_USER_MANAGER))


def user_manager_missing_sentence(text: str) -> str:
    """Return a sentence that says that this user's systemd does not answer, with the remedy. `text` is what
    systemctl printed.
    """
    message = " ".join(text.split())
    return (
        f"This user's systemd does not answer ({message}), so nothing was installed. It answers in a login "
        "session; after `su` or `sudo`, set XDG_RUNTIME_DIR=/run/user/$(id -u). In a container, or without "
        "systemd, `vestal up` runs everything without it."
    )


def parse_show(exit_code: int, text: str, last_exit: str = "") -> JobState:
    """Return a unit's state from the exit code and the output of `show --property=SHOWN_PROPERTIES` of
    systemctl. If the command failed or there is no such unit, return the state of a job that is not loaded.

    If `last_exit` is given, it is returned as the unit's last exit. Pass it only for a timer, which has no
    exit of its own: the `last_exit` of the service that the timer starts.
    """
    properties = dict(line.partition("=")[::2] for line in text.splitlines())
    if exit_code != 0 or properties.get("LoadState", "not-found") == "not-found":
        return JobState()
    pid, restarts = int(properties.get("MainPID") or 0), int(properties.get("NRestarts") or 0)
    exit_kind = properties.get("ExecMainCode", "0")
    return JobState(
        loaded=True,
        state=f"{properties.get('ActiveState', 'unknown')} ({properties.get('SubState', 'unknown')})",
        pid=pid or None,
        runs=restarts + 1 if pid or restarts or exit_kind != "0" else None,
        last_exit=last_exit or _last_exit(exit_kind, properties.get("ExecMainStatus", "0")),
    )


def problem_sentence(command: Sequence[str], exit_code: int, text: str) -> str:
    """Return a text with the command that failed, and what it printed, or its exit code if it printed
    nothing.
    """
    return f"`{' '.join(command)}`: {' '.join(text.split()) or f'exit code {exit_code}'}"


def _last_exit(exit_kind: str, status: str) -> str:
    if exit_kind in ("", "0"):
        return ""
    return status if exit_kind == CLD_EXITED else f"signal {status}"
