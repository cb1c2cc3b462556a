"""When the machine last woke: by what the system tells, or by what the agent noted."""

import time

from host_agent.doctor.evidence import journal_tail
from vestal.config import Config
from vestal.platform import wake_time
from vestal.supervision.sleep_detector import awake_s, boot_s

NOTED = ("machine_woke",)
WITHIN_S = 7 * 86_400.0


def last(config: Config) -> float | None:
    """In seconds since 1970; None where it has not slept since boot, or nobody tells."""
    noted = journal_tail.events(config.home, NOTED, max(time.time() - WITHIN_S, time.time() - boot_s()))
    told = [wake_time.last_wake_time() or 0.0, *(float(event["ts"]) for event in noted)]
    return max(told) or None


def slept_s() -> float:
    """How long it has slept since it was booted, in seconds."""
    return max(0.0, boot_s() - awake_s())
