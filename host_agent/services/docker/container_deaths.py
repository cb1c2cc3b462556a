"""What the engine's events tell of our containers' ends, and which end a record speaks of. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from host_agent.services.docker.container_status import timestamp
from host_agent.services.docker.exit_cause import Cause

KILL = {"9"}
STOP = {"2", "3", "15"}  # what an image may name as its STOPSIGNAL
KEEP = 20
# Docker tells of a kill after it was done, so its event may follow the `die`; and of a `die` only after
# the container's output was read to its end.
NEAR_S = 10.0
STOP_WITHIN_S = 120.0  # the longest grace anybody gives between the two signals of a stop
EARLY_S = 0.1  # clocks of one machine, read by two programs


@dataclass(frozen=True)
class Death:
    """One end of one run. `run_began_at` is 0 where the start was not seen."""

    service: str
    container: str
    at: float
    exit_code: int
    run_began_at: float = 0.0
    stopped_by: str = ""


@dataclass(frozen=True)
class ExplainedDeath:
    """A death and its explanation."""

    death: Death
    cause: Cause
    sentence: str

    @property
    def lasting(self) -> bool:
        """Worth a word also when all is well again: it will come back unless somebody acts."""
        return self.cause is Cause.OUT_OF_MEMORY


class Trail:
    """The newest signs of each container: `oom`, `kill`, `stop` (asked for) and `start`, with their times."""

    def __init__(self) -> None:
        self._signs: dict[str, list[tuple[str, float]]] = {}

    def take(self, event: Mapping[str, Any]) -> None:
        sign = sign_of(event)
        if sign:
            signs = self._signs.setdefault(container_of(event), [])
            signs.append((sign, time_of(event)))
            del signs[:-KEEP]

    def began_at(self, container: str) -> float:
        """When its newest run began."""
        return max((at for sign, at in self._signs.get(container, ()) if sign == "start"), default=0.0)

    def age(self, death: Death, sign: str, within_s: float = NEAR_S) -> float | None:
        """Seconds from the newest such sign of that run to its end (negative: it was told later)."""
        ages = (death.at - at for found, at in self._signs.get(death.container, ()) if found == sign)
        run_s = death.at - death.run_began_at
        return min((age for age in ages if -NEAR_S <= age <= min(within_s, run_s)), key=abs, default=None)


def sign_of(event: Mapping[str, Any]) -> str:
    action, signal = str(event.get("Action", "")), str(attributes(event).get("signal", ""))
    if action == "kill":
        return "kill" if signal in KILL else "stop" if signal in STOP else ""
    return action if action in ("oom", "start") else ""


def time_of(event: Mapping[str, Any]) -> float:
    return float(event.get("timeNano") or 0) / 1e9 or float(event.get("time") or 0)


def container_of(event: Mapping[str, Any]) -> str:
    return str((event.get("Actor") or {}).get("ID", ""))


def attributes(event: Mapping[str, Any]) -> Mapping[str, Any]:
    return (event.get("Actor") or {}).get("Attributes") or {}


def is_of(death: Death, inspect: Mapping[str, Any]) -> bool:
    """Whether the record's last end is this death. A container of the same service may be another one, and
    the same container may have ended again since."""
    if str(inspect.get("Id", "")) != death.container:
        return False
    finished = finished_at(inspect)
    return finished > 0 and -EARLY_S <= death.at - finished <= NEAR_S


def finished_at(inspect: Mapping[str, Any]) -> float:
    """Of its last end; it stays while the next run runs."""
    return timestamp((inspect.get("State") or {}).get("FinishedAt"))


def stays_ended(inspect: Mapping[str, Any]) -> bool:
    """Whether it has ended and Docker is not about to restart it."""
    return str((inspect.get("State") or {}).get("Status", "")) in ("exited", "dead")


def has_ended(inspect: Mapping[str, Any]) -> bool:
    return str((inspect.get("State") or {}).get("Status", "")) in ("exited", "dead", "restarting")
