"""Find out when this machine last woke from sleep."""

import sys

from vestal.platform import commands, kernel_log
from vestal.platform.macos import sysctl


def last_wake_time() -> float | None:
    """Return when the machine last woke, in seconds since 1970; None if it has not slept since boot, or if
    that is unknown.
    """
    if sys.platform == "darwin":
        return sysctl.wake_time(sysctl.parse(commands.output(*sysctl.WAKE_TIME_COMMAND) or ""))
    return kernel_log.last_wake(commands.output(*kernel_log.LAST_WAKE_COMMAND) or "")
