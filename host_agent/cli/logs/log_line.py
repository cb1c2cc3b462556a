"""Parse a log line of any program: its time, component, event and severity. Pure.

Vestal's services write one JSON object per line; the agent writes lines of Python's logging module. Ollama's
lines have a time too. Any other line, such as one of a traceback, has no time.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

ERROR, WARNING, INFO, DEBUG = "error", "warning", "info", "debug"
HEAD = ("ts", "component", "event", "cause")

_AGENT = re.compile(r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}(?:[+-]\d{4,6})?) ([A-Z]+) [\w.]+: (.*)")
_EVENT = re.compile(
    r"(?P<component>\w+) (?P<event>[a-z]+_[a-z_]+)(?:: (?P<cause>.*?))?(?: \[(?P<fields>\w+=.*)\])?"
)
_FIELD = re.compile(r"(\w+)=(.*?)(?= \w+=|$)")
_SLOG = re.compile(r'time=(\S+) level=(\w+)\b.*?\bmsg=("(?:[^"\\]|\\.)*"|\S+)(.*)')
_GIN = re.compile(r"\[GIN\] (\d{4}/\d\d/\d\d - \d\d:\d\d:\d\d) \| +(\d{3}) \|(.*)")
_ERASING = re.compile(r"^(?:\x1b\[\d*[A-Za-z]|\r)+")  # `docker compose` 2.5 erases lines even in a pipe
_DOCKER_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d+)?(Z|[+-]\d\d:\d\d) ?(.*)", re.DOTALL)

_ERROR = re.compile(
    r"breaker_opened|child_gave_up|supervisor_gave_up|container_died|disk_full|disk_not_writable|engine_broken"
    r"|only_a_reboot_helps|shutdown_hung|(?:.*_)?(?:failed|error|corrupt)(?:_.*)?"
)
_WARNING = re.compile(
    r"child_restarting|requests_parked|prompt_shortened|answer_log_stopped"
    r"|(?:.*_)?(?:not|lost|dropped|skipped|refused|denied|killed|died|waits|held|overdue|unavailable|ignored|aside)"
    r"(?:_.*)?"
)
_LEVELS = {
    "critical": ERROR,
    "fatal": ERROR,
    "error": ERROR,
    "warning": WARNING,
    "warn": WARNING,
    "debug": DEBUG,
}


@dataclass(frozen=True)
class LogLine:
    """One line of the log of `service`. `raw` is the line as it was written, and the other fields are what
    was read from it.

    `ts` is in seconds since 1970, or None for a line without a time. `event` is the name of the event that
    the line reports, `cause` its cause in words, and `fields` its other fields. If the line reports no event,
    `event` is empty and `cause` has the line's message. `is_complete` is True if the line was a JSON object
    and all its data is in the fields of this object, so that `raw` need not be shown with them.
    """

    service: str
    raw: str
    ts: float | None = None
    component: str = ""
    event: str = ""
    cause: str = ""
    fields: Mapping[str, Any] = field(default_factory=dict)
    severity: str = INFO
    is_complete: bool = False

    def as_json(self) -> dict[str, Any]:
        """Return the line as a JSON object for programs, including the event's fields.

        If the line was not JSON, or has a time that cannot be shown as a date, the object's field `line` has
        the original text.
        """
        head = {
            "ts": self.ts,
            "service": self.service,
            "component": self.component,
            "event": self.event or None,
        }
        written = {} if self.is_complete else {"line": self.raw}
        return head | {"cause": self.cause, "severity": self.severity} | dict(self.fields) | written


def parse(service: str, raw: str) -> LogLine:
    """Parse the line `raw` of the log of `service`. A line of unknown format becomes a line without a
    time.
    """
    for read in (_from_json, _from_agent, _from_ollama, _from_gin):
        if (line := read(service, raw)) is not None:
            return line
    severity = ERROR if raw.startswith(("Traceback (", "panic:", "fatal error:")) else INFO
    return LogLine(service, raw, None, service, cause=raw, severity=severity)


@dataclass(frozen=True)
class ContainerLine:
    """A line of `docker compose logs --timestamps`, and when Docker received it (seconds since 1970, None if
    unknown).
    """

    line: LogLine
    received_at: float | None


def parse_container_line(service: str, raw: str) -> ContainerLine:
    """Parse a line of `docker compose logs --timestamps`. A line without a time of its own gets Docker's
    time.
    """
    if not (found := _DOCKER_TIME.fullmatch(_ERASING.sub("", raw))):
        return ContainerLine(parse(service, raw), None)
    if (whole_seconds := _iso_time(found[1] + found[3])) is None:
        return ContainerLine(parse(service, raw), None)
    received_at = whole_seconds + float(found[2] or 0)
    line = parse(service, found[4])
    return ContainerLine(line if line.ts is not None else replace(line, ts=received_at), received_at)


def _from_json(service: str, raw: str) -> LogLine | None:
    if not raw.startswith("{"):
        return None
    try:
        record = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    if not isinstance(record, dict):
        return None
    fields = {name: value for name, value in record.items() if name not in HEAD and name != "service"}
    event, cause = _text(record.get("event")), _text(record.get("cause"))
    ts = _time(record.get("ts"))
    return LogLine(
        service,
        raw,
        ts,
        _text(record.get("component")) or service,
        event,
        cause if event else cause or raw,
        fields,
        _severity(event, fields),
        is_complete=ts is not None or record.get("ts") is None,
    )


def _from_agent(service: str, raw: str) -> LogLine | None:
    if not (found := _AGENT.fullmatch(raw)):
        return None
    ts = _iso_time(found[1])
    level, message = _LEVELS.get(found[2].lower(), INFO), found[3]
    if not (event := _EVENT.fullmatch(message)):
        return LogLine(service, raw, ts, service, cause=message, severity=level)
    fields = {name: _value(text) for name, text in _FIELD.findall(event["fields"] or "")}
    severity = _severity(event["event"], fields)
    return LogLine(
        service, raw, ts, event["component"], event["event"], event["cause"] or "", fields,
        severity if level == INFO else level,
    )  # fmt: skip


def _from_ollama(service: str, raw: str) -> LogLine | None:
    if not (found := _SLOG.match(raw)):
        return None
    ts = _iso_time(found[1])
    message = found[3]
    if message.startswith('"'):
        try:
            message = str(json.loads(message))
        except ValueError:
            message = message[1:-1]
    cause = message + found[4].rstrip()
    return LogLine(service, raw, ts, service, cause=cause, severity=_LEVELS.get(found[2].lower(), INFO))


def _from_gin(service: str, raw: str) -> LogLine | None:
    if not (found := _GIN.fullmatch(raw)):
        return None
    ts = _iso_time(found[1].replace("/", "-").replace(" - ", " "))
    severity = ERROR if found[2] >= "500" else WARNING if found[2] >= "400" else INFO
    cause = " ".join(f"{found[2]} {found[3]}".replace("|", " ").split())
    return LogLine(service, raw, ts, service, cause=cause, severity=severity)


def _severity(event: str, fields: Mapping[str, Any]) -> str:
    """Return the severity of an event: from its field `level` if it has one, else from its name and its
    outcome.
    """
    if level := fields.get("level"):
        return _LEVELS.get(_text(level).lower(), INFO)
    if event in ("child_exited", "child_stopped"):
        return WARNING if fields.get("signal") or fields.get("code") else INFO
    if event == "request_finished":
        return INFO if fields.get("outcome") in ("done", "cancelled", None) else WARNING
    if _ERROR.fullmatch(event):
        return ERROR
    return WARNING if _WARNING.fullmatch(event) else INFO


def _value(text: str) -> Any:
    """Parse the text that Python's `repr` wrote for a field: None, a boolean or a number; any other text
    stays as it is.
    """
    constants = {"None": None, "True": True, "False": False}
    if text in constants:
        return constants[text]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _iso_time(text: str) -> float | None:
    with contextlib.suppress(ValueError, OverflowError):
        at = datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", text).replace("Z", "+00:00"))
        return _time(at.timestamp())
    return None


def _time(value: object) -> float | None:
    """Return `value` as a time in seconds since 1970; None if it is no number, or no time that a date can
    show, such as a time in milliseconds.
    """
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    with contextlib.suppress(ValueError, OverflowError, OSError):
        datetime.fromtimestamp(value)
        return float(value)
    return None


def _text(value: object) -> str:
    return "" if value is None else str(value)
