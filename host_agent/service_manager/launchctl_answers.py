"""What launchctl's exit codes and words mean. An error reads `Bootstrap failed: 5: Input/output error`."""

import re
from enum import Enum

from host_agent.service_manager.job_state import JobState


class LaunchctlAnswer(Enum):
    """What an adapter does next depends on this alone."""

    DONE = "done"
    NOT_LOADED = "not loaded"
    ALREADY = "already so"
    STOPPING = "still stopping"
    RETRY = "try once more"
    NO_SESSION = "nobody is logged in at the screen"
    DISABLED = "disabled"
    NOT_PERMITTED = "not permitted"
    FAILED = "failed"


NUMBER = re.compile(r"failed: (\d+):")
# A job's own fields have one tab before them; those of its coalitions and endpoints have two.
FIELD = re.compile(r"^\t([a-z ]+?) = (.*)$", re.MULTILINE)
NEVER = "(never exited)"
BY_NUMBER = {
    0: LaunchctlAnswer.DONE,
    1: LaunchctlAnswer.NOT_PERMITTED,
    3: LaunchctlAnswer.NOT_LOADED,
    5: LaunchctlAnswer.RETRY,  # EIO: also what a bootstrap right after a bootout gets
    36: LaunchctlAnswer.STOPPING,
    37: LaunchctlAnswer.ALREADY,
    112: LaunchctlAnswer.NO_SESSION,
    113: LaunchctlAnswer.NOT_LOADED,
    119: LaunchctlAnswer.DISABLED,
    125: LaunchctlAnswer.NO_SESSION,
    150: LaunchctlAnswer.NOT_PERMITTED,
}
BY_WORDS = {
    "could not find service": LaunchctlAnswer.NOT_LOADED,
    "no such process": LaunchctlAnswer.NOT_LOADED,
    "could not find domain": LaunchctlAnswer.NO_SESSION,
    "domain does not support specified action": LaunchctlAnswer.NO_SESSION,
    "service is disabled": LaunchctlAnswer.DISABLED,
    "not privileged": LaunchctlAnswer.NOT_PERMITTED,
    "operation not permitted": LaunchctlAnswer.NOT_PERMITTED,
    "operation now in progress": LaunchctlAnswer.STOPPING,
    "operation already in progress": LaunchctlAnswer.ALREADY,
}


def judge(exit_code: int, text: str) -> LaunchctlAnswer:
    """The words first: some releases exit with 1 and tell the number only in the text."""
    if exit_code == 0:
        return LaunchctlAnswer.DONE
    for words, answer in BY_WORDS.items():
        if words in text.lower():
            return answer
    number = NUMBER.search(text)
    return BY_NUMBER.get(int(number[1]) if number else exit_code, LaunchctlAnswer.FAILED)


def parse(exit_code: int, text: str) -> JobState:
    """The state that `launchctl print DOMAIN/LABEL` tells."""
    if exit_code != 0:
        return JobState()
    fields: dict[str, str] = {}
    for name, value in FIELD.findall(text):
        fields.setdefault(name, value.strip())
    # After a death by signal there is no exit code, but a line of its own.
    ended = fields.get("last terminating signal") or fields.get("last exit code", NEVER)
    return JobState(
        loaded=True,
        state=fields.get("state", "unknown"),
        pid=_number(fields.get("pid")),
        runs=_number(fields.get("runs")),
        last_exit="" if ended == NEVER else ended,
    )


def sentence(answer: LaunchctlAnswer, command: str, text: str, domain: str, label: str) -> str:
    """What went wrong, and the remedy."""
    said = " ".join(text.split()) or answer.value
    return {
        LaunchctlAnswer.NO_SESSION: f"nobody is logged in at this Mac's screen, so there is no domain "
        f"{domain}, and nothing was started. The units are written and start at the next login there; "
        "to run without one, `vestal install --daemon`",
        LaunchctlAnswer.DISABLED: f"launchd keeps {label} disabled: `launchctl enable "
        f"{domain}/{label}`, then `vestal install` again "
        "(System Settings, General, Login Items may have it switched off)",
        LaunchctlAnswer.NOT_PERMITTED: f"`{command}` is not permitted ({said}): a job of root's needs sudo",
        LaunchctlAnswer.STOPPING: f"{label} has not stopped yet: run the same command again in a minute",
        LaunchctlAnswer.RETRY: f"`{command}` failed twice: {said}. `plutil -lint` checks the file, and "
        "`log show --last 2m --predicate 'process == \"launchd\"'` tells launchd's reason",
    }.get(answer, f"`{command}`: {said}")


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isdigit() else None
