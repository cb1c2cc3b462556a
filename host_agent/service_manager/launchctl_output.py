"""Interpret the exit codes and the output of launchctl. Pure.

An error reads `Bootstrap failed: 5: Input/output error`.
"""

import re
from enum import Enum

from host_agent.service_manager.jobs import JobState


class LaunchctlOutcome(Enum):
    """The result of one launchctl command. The value is the description for a person."""

    DONE = "done"
    NOT_LOADED = "not loaded"
    ALREADY = "already so"
    STOPPING = "still stopping"
    RETRY = "try once more"
    NO_SESSION = "nobody is logged in at the screen"
    DISABLED = "disabled"
    NOT_PERMITTED = "not permitted"
    FAILED = "failed"


ERROR_NUMBER = re.compile(r"failed: (\d+):")
# A job's own fields have one tab before them; those of its coalitions and endpoints have two.
JOB_FIELD = re.compile(r"^\t([a-z ]+?) = (.*)$", re.MULTILINE)
NEVER_EXITED = "(never exited)"
OUTCOME_BY_NUMBER = {
    0: LaunchctlOutcome.DONE,
    1: LaunchctlOutcome.NOT_PERMITTED,
    3: LaunchctlOutcome.NOT_LOADED,
    5: LaunchctlOutcome.RETRY,  # EIO: also the result of a bootstrap right after a bootout
    36: LaunchctlOutcome.STOPPING,
    37: LaunchctlOutcome.ALREADY,
    112: LaunchctlOutcome.NO_SESSION,
    113: LaunchctlOutcome.NOT_LOADED,
    119: LaunchctlOutcome.DISABLED,
    125: LaunchctlOutcome.NO_SESSION,
    150: LaunchctlOutcome.NOT_PERMITTED,
}
OUTCOME_BY_MESSAGE = {
    "could not find service": LaunchctlOutcome.NOT_LOADED,
    "no such process": LaunchctlOutcome.NOT_LOADED,
    "could not find domain": LaunchctlOutcome.NO_SESSION,
    "domain does not support specified action": LaunchctlOutcome.NO_SESSION,
    "service is disabled": LaunchctlOutcome.DISABLED,
    "not privileged": LaunchctlOutcome.NOT_PERMITTED,
    "operation not permitted": LaunchctlOutcome.NOT_PERMITTED,
    "operation now in progress": LaunchctlOutcome.STOPPING,
    "operation already in progress": LaunchctlOutcome.ALREADY,
}


def classify(exit_code: int, text: str) -> LaunchctlOutcome:
    """Return the outcome of a command that ended with `exit_code` and printed `text`.

    The message counts before the exit code, because some releases exit with 1 and give the error number only
    in the text.
    """
    if exit_code == 0:
        return LaunchctlOutcome.DONE
    for message, outcome in OUTCOME_BY_MESSAGE.items():
        if message in text.lower():
            return outcome
    number = ERROR_NUMBER.search(text)
    return OUTCOME_BY_NUMBER.get(int(number[1]) if number else exit_code, LaunchctlOutcome.FAILED)


def parse_print(exit_code: int, text: str) -> JobState:
    """Return the job's state from the exit code and the output of `launchctl print DOMAIN/LABEL`. If the
    command failed, return the state of a job that is not loaded.
    """
    if exit_code != 0:
        return JobState()
    fields: dict[str, str] = {}
    for name, value in JOB_FIELD.findall(text):
        fields.setdefault(name, value.strip())
    # After a death by signal there is no exit code, but a line of its own.
    last_exit = fields.get("last terminating signal") or fields.get("last exit code", NEVER_EXITED)
    return JobState(
        loaded=True,
        state=fields.get("state", "unknown"),
        pid=_number(fields.get("pid")),
        runs=_number(fields.get("runs")),
        last_exit="" if last_exit == NEVER_EXITED else last_exit,
    )


def problem_sentence(outcome: LaunchctlOutcome, command: str, text: str, domain: str, label: str) -> str:
    """Return a sentence that says what went wrong with `command`, a launchctl command that printed `text`,
    and the remedy if one is known for `outcome`. `label` names the job that the command was about, and
    `domain` the job's launchd domain, such as `gui/501`.
    """
    message = " ".join(text.split()) or outcome.value
    return {
        LaunchctlOutcome.NO_SESSION: f"nobody is logged in at this Mac's screen, so there is no domain "
        f"{domain}, and nothing was started. The jobs' files are written and start at the next login there; "
        "to run without one, `vestal install --daemon`",
        LaunchctlOutcome.DISABLED: f"launchd keeps {label} disabled: `launchctl enable "
        f"{domain}/{label}`, then `vestal install` again "
        "(System Settings, General, Login Items may have it switched off)",
        LaunchctlOutcome.NOT_PERMITTED: f"`{command}` is not permitted ({message}): "
        "a job that belongs to root needs sudo",
        LaunchctlOutcome.STOPPING: f"{label} has not stopped yet: run the same command again in a minute",
        LaunchctlOutcome.RETRY: f"`{command}` failed twice: {message}. `plutil -lint` checks the file, and "
        "`log show --last 2m --predicate 'process == \"launchd\"'` shows launchd's reason",
    }.get(outcome, f"`{command}`: {message}")


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isdigit() else None
