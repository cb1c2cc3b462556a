"""A journal that a test writes, and the incidents that follow from it."""

from __future__ import annotations

from typing import Any

from host_agent.incidents.fold import IncidentFold
from host_agent.incidents.story import as_json


def clock(ts: float) -> str:
    """Return the time of day `ts` seconds after 05:23:00."""
    at = 5 * 3600 + 23 * 60 + round(ts)
    return f"{at // 3600:02}:{at // 60 % 60:02}:{at % 60:02}"


class Story:
    """Writes journal entries, and returns the incidents that they give."""

    def __init__(self) -> None:
        self.fold, self.seq, self.ts = IncidentFold(), 0, 0.0

    def at(self, ts: float) -> Story:
        self.ts = ts
        return self

    def write(self, component: str, event: str, cause: str = "", **fields: Any) -> Story:
        self.seq += 1
        entry = {"seq": self.seq, "ts": self.ts, "component": component, "event": event, "cause": cause}
        self.fold.add(entry | {"fields": fields})
        return self

    def dies(self, service: str, signal: int | None = 9, code: int | None = None, parked: int = 0) -> Story:
        if parked:
            ids = [f"r{number}.{self.seq}" for number in range(parked)]
            self.write("mlx_server", "requests_parked", count=parked, ids=ids)
        self.write(service, "child_exited", "killed by SIGKILL", pid=7, code=code, signal=signal)
        self.write(service, "child_restarting", "killed by SIGKILL", delay_s=0.0, attempt=0)
        return self.write(service, "child_started", "killed by SIGKILL", pid=8, restarts=1)

    def ready(self, service: str) -> Story:
        return self.write(service, "child_ready", "", pid=8, start_s=1.0)

    def as_shown(self) -> list[dict]:
        return [as_json(incident, clock, self.ts) for incident in self.fold.ledger.incidents]

    def one(self) -> dict:
        (incident,) = self.as_shown()
        return incident
