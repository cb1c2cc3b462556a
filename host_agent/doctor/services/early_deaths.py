"""Which services end within seconds of their start, from the journal's events. Pure."""

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
# An end that was asked for carries the asker's words; these are what a process says by itself.
NOT_STARTED = "it cannot be run: "
BY_ITSELF = ("exit code ", "killed by ", "ended, ", NOT_STARTED)


@dataclass(frozen=True)
class EarlyDeath:
    """The newest of `times` ends of a service since it was ready. `gave_up`: it is not started again."""

    service: str
    cause: str
    run_s: float
    times: int
    gave_up: bool = False


def find(events: Iterable[Mapping[str, Any]]) -> list[EarlyDeath]:
    """Services that never became ready and keep ending early. Events are oldest first."""
    started: dict[tuple[str, int], float] = {}
    found: dict[str, EarlyDeath] = {}
    for event in events:
        service, name = str(event["component"]), str(event["event"])
        pid = int(event["fields"].get("pid") or 0)
        if name == "child_started":
            started[service, pid] = float(event["ts"])
        elif name in ("child_ready", "child_adopted", "child_stopped"):
            found.pop(service, None)
        elif name == "child_gave_up" and service in found:
            last = found[service]
            found[service] = EarlyDeath(
                service, str(event["cause"]) or last.cause, last.run_s, last.times, True
            )
        elif name == "child_launch_failed":
            _note(found, service, f"{NOT_STARTED}{event['cause']}", 0.0)
        elif name == "child_exited" and (service, pid) in started:
            run_s = float(event["ts"]) - started.pop((service, pid))
            _note(found, service, str(event["cause"]), run_s)
    return list(found.values())


def _note(found: dict[str, EarlyDeath], service: str, cause: str, run_s: float) -> None:
    if run_s > EARLY_S or not cause.startswith(BY_ITSELF):
        found.pop(service, None)
        return
    times = found[service].times + 1 if service in found else 1
    found[service] = EarlyDeath(service, cause, run_s, times)
