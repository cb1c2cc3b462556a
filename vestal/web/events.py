"""One JSON line for each event: `ts`, `seq`, `component`, `event`, `cause` and the event's own fields."""

from __future__ import annotations

import itertools
import json
import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, TextIO

from vestal.best_effort.output import write_line


def line_of(record: Mapping[str, Any]) -> str:
    """Return the record as one line of JSON in ASCII. A value that JSON cannot represent becomes a string."""
    return json.dumps(record, default=str)


class EventWriter:
    """Numbers the events of one program, and writes each as one line. Any thread may call it.

    `stream` returns the stream to write to. It is called for each event, since tests replace sys.stdout.
    """

    def __init__(
        self, component: str, stream: Callable[[], TextIO], wall: Callable[[], float] = time.time
    ) -> None:
        self.component = component
        self._stream = stream
        self._wall = wall
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()

    def emit(self, event: str, cause: str = "", **fields: Any) -> None:
        """Write one event: its name in the past tense, and its cause in words if there is one."""
        head: dict[str, Any] = {"ts": round(self._wall(), 3), "seq": 0, "component": self.component}
        with self._lock:
            head["seq"] = next(self._numbers)
            write_line(self._stream(), line_of(head | {"event": event, "cause": cause} | fields))


class LogHandler(logging.Handler):
    """Turns the log records of libraries into events, so that all lines of a program's log have one format.

    Each record of `level` or above becomes an event of the name `event`, which is passed to `emit`.
    """

    def __init__(self, emit: Callable[..., Any], event: str, level: int = logging.WARNING) -> None:
        """Make a handler that calls `emit(event, cause, level=…, logger=…)` for each log record of the
        handler's `level` or above.

        In this call, `cause` is the record's message, `level` the record's own level in lower case, such as
        `warning`, and `logger` the name of its logger. If an exception was logged, it is added to `cause`,
        and its traceback is passed as the keyword argument `traceback`.
        """
        super().__init__(level)
        self._emit = emit
        self._event = event

    def emit(self, record: logging.LogRecord) -> None:
        fields: dict[str, Any] = {"level": record.levelname.lower(), "logger": record.name}
        try:
            cause = record.getMessage()
            if record.exc_info and record.exc_info[1] is not None:
                cause = f"{cause}: {record.exc_info[1]!r}"
                fields["traceback"] = logging.Formatter().formatException(record.exc_info)
        except Exception as error:  # a library's mistake must not reach the code that only logs something
            message = record.msg if isinstance(record.msg, str) else type(record.msg).__name__
            cause = (
                f"A log message could not be formatted ({type(error).__name__}): {message!r}, logged in line "
                f"{record.lineno} of {record.pathname}."
            )
        self._emit(self._event, cause, **fields)
