"""Which events of the journal a person is told of, and in which words. Pure.

Few: what heals itself is not worth a word. The same is not said twice within the hour, and what was said to
be down is said to be back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

AGAIN_AFTER_S = 3600.0
REMEDY = "`vestal doctor` says what is wrong, `vestal recover --reset` tries again at once."


@dataclass(frozen=True)
class Notice:
    """`service` is what it is about; `ts` in seconds since the epoch."""

    service: str
    event: str
    title: str
    text: str
    ts: float

    def as_json(self) -> dict[str, Any]:
        """What a webhook gets. `text` stands alone, as chat programs want it."""
        return {
            "service": self.service,
            "event": self.event,
            "title": self.title,
            "text": f"{self.title}: {self.text}",
            "ts": self.ts,
        }


def _breaker_opened(service: str, cause: str, fields: Mapping[str, Any]) -> tuple[str, str]:
    again = f"It is tried again in {_spoken(fields.get('open_s'))}."
    return f"{service} keeps failing", f"{_sentence(cause)} {again} {REMEDY}"


def _gave_up(service: str, cause: str, fields: Mapping[str, Any]) -> tuple[str, str]:
    return f"{service} cannot start", f"{_sentence(cause)} {REMEDY}"


def _only_a_reboot(service: str, cause: str, fields: Mapping[str, Any]) -> tuple[str, str]:
    return "Only a reboot helps", _sentence(cause)


def _out_of_memory(service: str, cause: str, fields: Mapping[str, Any]) -> tuple[str, str] | None:
    if fields.get("reason") != "out_of_memory":
        return None
    return f"{service} ran out of memory", _sentence(cause)


Words = Callable[[str, str, Mapping[str, Any]], tuple[str, str] | None]
WORTH_TELLING: Mapping[str, Words] = {
    "breaker_opened": _breaker_opened,
    "child_gave_up": _gave_up,
    "only_a_reboot_helps": _only_a_reboot,
    "container_died": _out_of_memory,
}
BACK = {"child_ready": frozenset({"breaker_opened", "child_gave_up"})}
"""An event that ends what was said with others."""


class Notices:
    """Remembers what was said, by service and event."""

    def __init__(self) -> None:
        self._said: dict[tuple[str, str], float] = {}

    def of(self, entry: Mapping[str, Any]) -> Notice | None:
        """What to say of one entry of the journal; None for most."""
        service, event, ts = str(entry["component"]), str(entry["event"]), float(entry["ts"])
        if event in BACK:
            return self._back(service, event, ts)
        if event not in WORTH_TELLING:
            return None
        words = WORTH_TELLING[event](service, str(entry["cause"]), entry["fields"])
        said = self._said.get((service, event))
        if words is None or (said is not None and ts - said < AGAIN_AFTER_S):
            return None
        self._said[service, event] = ts
        return Notice(service, event, *words, ts)

    def _back(self, service: str, event: str, ts: float) -> Notice | None:
        ended = [key for key in self._said if key[0] == service and key[1] in BACK[event]]
        for key in ended:
            del self._said[key]
        return Notice(service, event, f"{service} is back", "It is up and answers.", ts) if ended else None


def _sentence(cause: str) -> str:
    told = cause.strip() or "the cause is not known"
    return told[:1].upper() + told[1:] + ("" if told.endswith(".") else ".")


def _spoken(seconds: object) -> str:
    if not isinstance(seconds, int | float):
        return "a while"
    return f"{seconds / 60:.0f} minutes" if seconds >= 120 else f"{seconds:.0f} s"
