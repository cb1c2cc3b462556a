"""Find the services that end within seconds of their start, from the journal's events. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

EVENTS = (
    "child_started",
    "child_launch_failed",
    "child_ready",
    "child_adopted",
    "child_exited",
    "child_gave_up",
    "child_stopped",
)
EARLY_S = 15.0
# The causes of ends that nobody requested begin so; a requested end has the requester's words.
LAUNCH_FAILED = "it cannot be run: "
UNREQUESTED_CAUSES = ("exit code ", "killed by ", "ended, ", LAUNCH_FAILED)


@dataclass(frozen=True)
class EarlyDeath:
    """The newest end of a service within EARLY_S seconds of its start.

    `run_s` is how many seconds the process ran, and `times` how often in a row the service ended so early.
    `gave_up` is True if the supervisor does not restart the service.
    """

    service: str
    cause: str
    run_s: float
    times: int
    gave_up: bool = False


def find(events: Iterable[Mapping[str, Any]]) -> list[EarlyDeath]:
    """Return, for each service that ended within EARLY_S seconds of its start and has not become ready since,
    the newest such end.

    `events` are the journal's events with names in EVENTS, oldest first.
    """
    started_at: dict[tuple[str, int], float] = {}
    found: dict[str, EarlyDeath] = {}
    for event in events:
        service, name = str(event["component"]), str(event["event"])
        pid = int(event["fields"].get("pid") or 0)
        if name == "child_started":
            started_at[service, pid] = float(event["ts"])
        elif name in ("child_ready", "child_adopted", "child_stopped"):
            found.pop(service, None)
        elif name == "child_gave_up" and service in found:
            last = found[service]
            cause = str(event["cause"]) or last.cause
            found[service] = EarlyDeath(service, cause, last.run_s, last.times, gave_up=True)
        elif name == "child_launch_failed":
            _count(found, service, f"{LAUNCH_FAILED}{event['cause']}", 0.0)
        elif name == "child_exited" and (service, pid) in started_at:
            run_s = float(event["ts"]) - started_at.pop((service, pid))
            if run_s >= 0:  # else the clock was set back, and how long the process ran is unknown
                _count(found, service, str(event["cause"]), run_s)
    return list(found.values())


def _count(found: dict[str, EarlyDeath], service: str, cause: str, run_s: float) -> None:
    """Record in `found` that `service` ended `run_s` seconds after its start, and that this happened once
    more in a row.

    If the process ran longer than EARLY_S or, according to `cause`, somebody requested its end, remove the
    service from `found` instead.
    """
    if run_s > EARLY_S or not cause.startswith(UNREQUESTED_CAUSES):
        found.pop(service, None)
        return
    times = found[service].times + 1 if service in found else 1
    found[service] = EarlyDeath(service, cause, run_s, times)
