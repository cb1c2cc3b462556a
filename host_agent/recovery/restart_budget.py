"""A limit on how often recovery passes restart a running service. Pure: `now` is in monotonic seconds."""

from vestal.supervision import Intensity

# A service that hangs more often than this needs a person.
RESTARTS_PER_HOUR = Intensity(max_restarts=5, window_s=3600.0)


class RestartBudget:
    """Counts the restarts of each service within the last hour. Checks read the count, remedies add to it."""

    def __init__(self) -> None:
        self._spent: dict[str, Intensity] = {}

    def left(self, service: str, now: float) -> int:
        """Return how many more times the service may be restarted: the limit per hour, less the restarts in
        the hour before `now`.
        """
        counted = self._spent.get(service, RESTARTS_PER_HOUR)
        return counted.max_restarts - len(counted.recent(now))

    def spend(self, service: str, now: float) -> None:
        """Count a restart of the service."""
        self._spent[service] = self._spent.get(service, RESTARTS_PER_HOUR).add(now)

    def reset(self) -> None:
        """Forget every restart."""
        self._spent.clear()
