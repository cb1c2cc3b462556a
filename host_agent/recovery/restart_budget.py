"""A limit on how often recovery passes restart a service or a worker's container. Pure: `now` is in monotonic
seconds.
"""

from vestal.supervision import Intensity

# What hangs more often than this needs a person.
RESTARTS_PER_HOUR = Intensity(max_restarts=5, window_s=3600.0)


class RestartBudget:
    """Counts the restarts of each service within the last hour. For workers, counts those of each container,
    so that one worker's restarts do not count against the others. Checks read the count, remedies add to it.

    The parameter `restarted` of the methods is the name of a service, or the identifier of a worker's
    container.
    """

    def __init__(self) -> None:
        self._spent: dict[str, Intensity] = {}

    def left(self, restarted: str, now: float) -> int:
        """Return how many more times the service or container may be restarted: the limit per hour, less the
        restarts in the hour before `now`.
        """
        counted = self._spent.get(restarted, RESTARTS_PER_HOUR)
        return counted.max_restarts - len(counted.recent(now))

    def spend(self, restarted: str, now: float) -> None:
        """Count a restart of the service or container at `now`, in seconds of the monotonic clock."""
        self._spent[restarted] = self._spent.get(restarted, RESTARTS_PER_HOUR).add(now)

    def reset(self) -> None:
        """Forget every restart."""
        self._spent.clear()
