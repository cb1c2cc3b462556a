"""The death of a container as the Docker engine's events show it. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from host_agent.services.docker.container_status import timestamp
from host_agent.services.docker.exit_cause import ExitCause

KILL_SIGNALS = {"9"}
STOP_SIGNALS = {"2", "3", "15"}  # those that images use as their STOPSIGNAL
KEPT_EVENTS = 20  # of each container
# The engine sends a `kill` event after the kill, so this event may follow the `die` event. The engine sends
# the `die` event only after it has read the container's output to its end.
WINDOW_S = 10.0
STOP_WINDOW_S = 120.0  # the longest grace that anybody gives between the two signals of a stop
CLOCK_TOLERANCE_S = 0.1  # two programs read the machine's clock


@dataclass(frozen=True)
class Death:
    """The end of one run of a container; times are in seconds since 1970. `run_began_at` is 0 if the start of
    the run was not seen.

    If the agent stopped the container, `stopped_by` names who asked the agent to do so, such as "a person" or
    "a recovery pass"; else it is "".
    """

    service: str
    container: str
    at: float
    exit_code: int
    run_began_at: float = 0.0
    stopped_by: str = ""


@dataclass(frozen=True)
class ExplainedDeath:
    """The death of a container with its cause, and a sentence that explains it."""

    death: Death
    cause: ExitCause
    sentence: str

    @property
    def is_recurring(self) -> bool:
        """Return whether the cause persists until a person acts, so that it is shown even while the service
        is ready.
        """
        return self.cause is ExitCause.OUT_OF_MEMORY


class EventTrail:
    """Remembers the newest events of each container that explain a death, with their times.

    The events are `oom`, `kill` (by SIGKILL), `stop` (by a signal that asks the program to end) and `start`.
    """

    def __init__(self) -> None:
        self._events: dict[str, list[tuple[str, float]]] = {}

    def add(self, event: Mapping[str, Any]) -> None:
        """Remember one of Docker's events if it may explain a death."""
        name = _trail_name(event)
        if name:
            events = self._events.setdefault(container_of(event), [])
            events.append((name, time_of(event)))
            del events[:-KEPT_EVENTS]

    def run_began_at(self, container: str) -> float:
        """Return when the newest run of a container began, in seconds since 1970; 0 if that was not seen."""
        return max((at for name, at in self._events.get(container, ()) if name == "start"), default=0.0)

    def age_s(self, death: Death, name: str, window_s: float = WINDOW_S) -> float | None:
        """Return how many seconds before the death the event `name` came, or None if there was no such event.
        The result is negative if the event came after the death.

        An event counts if it came after the start of the container's run that this death ended, at most
        `window_s` seconds before the death and at most WINDOW_S seconds after it. Of several, the one nearest
        to the death counts.
        """
        ages = (death.at - at for found, at in self._events.get(death.container, ()) if found == name)
        run_s = death.at - death.run_began_at
        return min((age for age in ages if -WINDOW_S <= age <= min(window_s, run_s)), key=abs, default=None)


def _trail_name(event: Mapping[str, Any]) -> str:
    action, signal = str(event.get("Action", "")), str(attributes(event).get("signal", ""))
    if action == "kill":
        return "kill" if signal in KILL_SIGNALS else "stop" if signal in STOP_SIGNALS else ""
    return action if action in ("oom", "start") else ""


def time_of(event: Mapping[str, Any]) -> float:
    """Return the time of an event, in seconds since the epoch."""
    return float(event.get("timeNano") or 0) / 1e9 or float(event.get("time") or 0)


def container_of(event: Mapping[str, Any]) -> str:
    """Return the identifier of an event's container."""
    return str((event.get("Actor") or {}).get("ID", ""))


def attributes(event: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the attributes of an event: the container's labels, and details of the action such as its signal
    or exit code.
    """
    return (event.get("Actor") or {}).get("Attributes") or {}


def is_last_end_of(death: Death, inspect: Mapping[str, Any]) -> bool:
    """Return whether `death` is the last end that the container's `docker inspect` record shows.

    It is not if the record is of another container, or if the container has ended again since.
    """
    if str(inspect.get("Id", "")) != death.container:
        return False
    finished = finished_at(inspect)
    return finished > 0 and -CLOCK_TOLERANCE_S <= death.at - finished <= WINDOW_S


def finished_at(inspect: Mapping[str, Any]) -> float:
    """Return when a container last ended, in seconds since 1970; 0 if it never ended. Its record keeps this
    time while the container runs again.
    """
    return timestamp((inspect.get("State") or {}).get("FinishedAt"))


def stays_ended(inspect: Mapping[str, Any]) -> bool:
    """Return whether a container has ended and Docker will not restart it."""
    return str((inspect.get("State") or {}).get("Status", "")) in ("exited", "dead")


def has_ended(inspect: Mapping[str, Any]) -> bool:
    """Return whether a container has ended, even if Docker is about to restart it."""
    return str((inspect.get("State") or {}).get("Status", "")) in ("exited", "dead", "restarting")
