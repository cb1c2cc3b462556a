"""The section `supervision`: when a service is restarted, and how it is stopped and probed."""

from vestal.config.settings.field_types import PositiveCount, Seconds, SecondsOrZero, Section


class SupervisionSection(Section):
    """The limits of every supervised service; `vestal.supervision.RestartPolicy` explains how they work
    together.

    `backoff_base_s`, `backoff_max_s`   the delay of restart n is `min(base · 2^n, max)`
    `max_restarts`, `window_s`          the most restarts in a window of time; one more opens the breaker
    `breaker_failures`                  the failed starts in a row that open the breaker
    `breaker_open_s`                    how long the breaker stays open; doubles each time, up to 30 minutes
    `stop_s`                            the time from SIGTERM to SIGKILL
    `health_interval_s`                 how often a service is probed
    `health_failures`                   the failed probes in a row that restart it
    `busy_limit_s`                      how long a service that works may leave its probes without an answer
    `settle_after_kill_s`               the time from a SIGKILL to the next start; unset: 5 on macOS, else 0
    """

    backoff_base_s: Seconds = 2.0
    backoff_max_s: Seconds = 60.0
    max_restarts: PositiveCount = 5
    window_s: Seconds = 300.0
    breaker_failures: PositiveCount = 5
    breaker_open_s: Seconds = 60.0
    stop_s: Seconds = 10.0
    health_interval_s: Seconds = 10.0
    health_failures: PositiveCount = 3
    busy_limit_s: Seconds = 120.0
    settle_after_kill_s: SecondsOrZero = 0.0
