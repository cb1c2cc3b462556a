"""Turn the `supervision` settings into the supervisor's types."""

from vestal.config.settings import SupervisionSection
from vestal.supervision import Backoff, BreakerPolicy, Intensity, ProbePolicy, RestartPolicy


def restart_policy(
    settings: SupervisionSection,
    *,
    start_timeout_s: float = 60.0,
    planned_stop_timeout_s: float | None = None,
    productive_weight: float = 1.0,
) -> RestartPolicy:
    """Return the restart policy of a child of the agent: backoff, restart intensity, breaker and probes as
    `settings` has them for every child, and the child's own limits from the other parameters.

    `planned_stop_timeout_s` is the time from SIGTERM to SIGKILL in a stop that was requested; None means the
    time of any other stop. `productive_weight` is what a restart counts for the restart intensity if the
    process had served requests; any other restart counts 1.
    """
    return RestartPolicy(
        backoff=Backoff(settings.backoff_base_s, settings.backoff_max_s),
        intensity=Intensity(settings.max_restarts, settings.window_s),
        breaker=BreakerPolicy(settings.breaker_failures, settings.breaker_open_s),
        start_timeout_s=start_timeout_s,
        stop_timeout_s=settings.stop_s,
        settle_after_kill_s=settings.settle_after_kill_s,
        probe=ProbePolicy(
            interval_s=settings.health_interval_s,
            failures=settings.health_failures,
            busy_limit_s=settings.busy_limit_s,
        ),
        planned_stop_timeout_s=planned_stop_timeout_s,
        productive_weight=productive_weight,
    )
