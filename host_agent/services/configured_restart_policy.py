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
    """Return the restart policy of a child of the agent. Backoff, restart intensity, breaker, stop times and
    probes come from `settings`, and are the same for every child. The other parameters are limits of this
    child.

    `start_timeout_s` is how many seconds the child may take to become ready. `planned_stop_timeout_s` is the
    time from SIGTERM to SIGKILL, in seconds, when a stop was requested; None means the time of all other
    stops, `settings.stop_s`. `productive_weight` is how much a restart counts for the restart intensity if
    the ended process had served requests; any other restart counts 1.
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
