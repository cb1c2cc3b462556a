"""Decide which journal events a person is notified of, and in which words. Pure.

There are few: what recovers by itself is not worth a notice. The same event of a service is repeated after an
hour at the earliest, and a service that was reported as failing is reported again when it is ready.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from host_agent.sentences import as_sentence

REPEAT_AFTER_S = 3600.0
REMEDY = "`vestal doctor` says what is wrong, `vestal recover --reset` tries again at once."


@dataclass(frozen=True)
class Notice:
    """A notification about `service`, caused by `event`; `ts` is in seconds since 1970."""

    service: str
    event: str
    title: str
    text: str
    ts: float

    def as_json(self) -> dict[str, Any]:
        """Return the body for a webhook. Chat programs show only `text`, so it includes the title."""
        return {
            "service": self.service,
            "event": self.event,
            "title": self.title,
            "text": f"{self.title}: {self.text}",
            "ts": self.ts,
        }


def _breaker_opened(service: str, cause: str, fields: Mapping[str, Any]) -> tuple[str, str]:
    retry = f"The next attempt is in {_duration(fields.get('open_s'))}."
    return f"{service} keeps failing", f"{_sentence(cause)} {retry} {REMEDY}"


def _gave_up(service: str, cause: str, fields: Mapping[str, Any]) -> tuple[str, str]:
    return f"{service} cannot start", f"{_sentence(cause)} {REMEDY}"


def _only_a_reboot_helps(service: str, cause: str, fields: Mapping[str, Any]) -> tuple[str, str]:
    return "Only a reboot helps", _sentence(cause)


def _disk_not_writable(service: str, cause: str, fields: Mapping[str, Any]) -> tuple[str, str]:
    return "The disk cannot be written", _sentence(cause)


def _out_of_memory(service: str, cause: str, fields: Mapping[str, Any]) -> tuple[str, str] | None:
    if fields.get("reason") != "out_of_memory":
        return None
    return f"{service} ran out of memory", _sentence(cause)


TitleAndText = Callable[[str, str, Mapping[str, Any]], tuple[str, str] | None]
"""Takes service, cause and fields of an event; returns None if no notice is due."""

NOTICE_TEXTS: Mapping[str, TitleAndText] = {
    "breaker_opened": _breaker_opened,
    "child_gave_up": _gave_up,
    "only_a_reboot_helps": _only_a_reboot_helps,
    "container_died": _out_of_memory,
    "disk_not_writable": _disk_not_writable,
}
ENDED_BY = {
    "child_ready": frozenset({"breaker_opened", "child_gave_up"}),
    "disk_writable_again": frozenset({"disk_not_writable"}),
}
"""The events that end a failure, each with the events that reported it."""


class NoticeFilter:
    """Remembers when each event of each service was last reported."""

    def __init__(self) -> None:
        self._reported_at: dict[tuple[str, str], float] = {}

    def notice_for(self, entry: Mapping[str, Any]) -> Notice | None:
        """Return the notice for an event of the journal; None for most."""
        service, event, ts = str(entry["component"]), str(entry["event"]), float(entry["ts"])
        if event in ENDED_BY:
            return self._recovery_notice(service, event, ts)
        if event not in NOTICE_TEXTS:
            return None
        title_and_text = NOTICE_TEXTS[event](service, str(entry["cause"]), entry["fields"])
        reported_at = self._reported_at.get((service, event))
        if title_and_text is None or (reported_at is not None and ts - reported_at < REPEAT_AFTER_S):
            return None
        self._reported_at[service, event] = ts
        return Notice(service, event, *title_and_text, ts)

    def _recovery_notice(self, service: str, event: str, ts: float) -> Notice | None:
        """Return a notice that the service or the disk is back, if one of its failures was reported."""
        ended = [key for key in self._reported_at if key[0] == service and key[1] in ENDED_BY[event]]
        for key in ended:
            del self._reported_at[key]
        if not ended:
            return None
        if event == "disk_writable_again":
            return Notice(service, event, "The disk can be written again", "All is written again.", ts)
        return Notice(service, event, f"{service} is back", "It is up and answers.", ts)


def _sentence(cause: str) -> str:
    return as_sentence(cause.strip() or "the cause is not known")


def _duration(seconds: object) -> str:
    if not isinstance(seconds, int | float):
        return "a while"
    return f"{seconds / 60:.0f} minutes" if seconds >= 120 else f"{seconds:.0f} s"
