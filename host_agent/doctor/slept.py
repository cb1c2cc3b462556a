"""Sleep and wake: a server that ran before hangs or answers 500 since, its Metal context gone."""

import time
from collections.abc import Iterator

from host_agent.config import Config
from host_agent.doctor import silent
from host_agent.doctor.finding import Finding
from host_agent.doctor.silent import Silent, by_sleep, remedy
from host_agent.host import wake

NAME = "slept"


def look(config: Config) -> Iterator[Finding]:
    """Only where the system tells of a wake."""
    woke_at = wake.last()
    if woke_at is None:
        yield Finding(NAME, "ok", "the machine has not slept since it was booted")
        return
    found = [each for each in silent.find(config) if by_sleep(each, woke_at)]
    for each in found:
        yield judge(each, woke_at)
    if not found:
        yield Finding(NAME, "ok", f"all that ran through the sleep answers again (woke {_clock(woke_at)})")


def judge(each: Silent, woke_at: float) -> Finding:
    evidence = f"{each.url}: {each.why}; the machine woke at {_clock(woke_at)}, and it ran before"
    sentence = f"{each.who} has hung since the machine slept"
    return Finding(NAME, "fault", sentence, remedy(each), evidence)


def _clock(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(at))
