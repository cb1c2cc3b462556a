"""When this machine last woke from sleep."""

import sys

from vestal.platform import commands, kernel_log
from vestal.platform.macos import sysctl


def last() -> float | None:
    """In seconds since 1970; None where it has not slept since boot, or does not tell."""
    if sys.platform == "darwin":
        return sysctl.wake_time(sysctl.parse(commands.output(*sysctl.WAKE) or ""))
    return kernel_log.last_wake(commands.output(*kernel_log.WAKES) or "")
