"""Sleep and wake: a server that ran before hangs or answers 500 since, its Metal context gone."""

import time
from collections.abc import Callable, Iterator

from host_agent.doctor.evidence import http_question
from host_agent.doctor.finding import Finding
from host_agent.doctor.unresponsive import silent_servers, wake_evidence
from host_agent.doctor.unresponsive.silent_servers import Silent, by_sleep, remedy
from vestal.config import Config

NAME = "slept"
CLOCKS_DRIFT_S = 5.0


def look(
    config: Config,
    last_wake: Callable[[Config], float | None] = wake_evidence.last,
    within_s: float = http_question.WITHIN_S,
) -> Iterator[Finding]:
    """Only where somebody tells of a wake: `last_wake` gives it in seconds since 1970."""
    woke_at = last_wake(config)
    if woke_at is None:
        yield _unknown(wake_evidence.slept_s())
        return
    found = [each for each in silent_servers.find(config, within_s) if by_sleep(each, woke_at)]
    for each in found:
        yield judge(each, woke_at)
    if not found:
        yield Finding(NAME, "ok", f"all that ran through the sleep answers again (woke {_clock(woke_at)})")


def judge(each: Silent, woke_at: float) -> Finding:
    evidence = f"{each.url}: {each.why}; the machine woke at {_clock(woke_at)}, and it ran before"
    sentence = f"{each.who} has hung since the machine slept"
    return Finding(NAME, "fault", sentence, remedy(each), evidence)


def _unknown(slept_s: float) -> Finding:
    if slept_s > CLOCKS_DRIFT_S:
        return Finding(NAME, "note", f"the machine slept for {slept_s:.0f} s, and does not tell when it woke")
    return Finding(NAME, "ok", "the machine has not slept since it was booted")


def _clock(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(at))
