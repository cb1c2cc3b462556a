"""When this machine last woke from sleep."""

import sys

from host_agent.host import kernel_log, sysctl, tool


def last() -> float | None:
    """In seconds since 1970; None where it has not slept since boot, or does not tell."""
    if sys.platform == "darwin":
        return sysctl.wake_time(sysctl.parse(tool.output(*sysctl.WAKE) or ""))
    return kernel_log.last_wake(tool.output(*kernel_log.WAKES) or "")
