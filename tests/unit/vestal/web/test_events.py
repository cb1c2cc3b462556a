"""Events as lines of JSON."""

from __future__ import annotations

import io
import json
import logging
import threading
from pathlib import Path

from vestal.web.events import EventWriter, LogHandler, line_of


def test_event_writer_numbers_events_of_all_threads_without_gaps():
    out = io.StringIO()
    writer = EventWriter("part", lambda: out, wall=lambda: 1.23456)

    def emit() -> None:
        for _ in range(50):
            writer.emit("thing_happened", "because", size_bytes=3)

    threads = [threading.Thread(target=emit) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [line["seq"] for line in lines] == list(range(1, 201))
    assert lines[0] == {
        "ts": 1.235,
        "seq": 1,
        "component": "part",
        "event": "thing_happened",
        "cause": "because",
        "size_bytes": 3,
    }


def test_event_line_holds_any_text_and_value_in_ascii():
    line = line_of({"text": "\ud800\0\n\u00e4", "path": Path("x")})
    assert line.isascii() and "\n" not in line
    assert json.loads(line) == {"text": "\ud800\0\n\u00e4", "path": "x"}


class Unprintable(Exception):
    def __repr__(self) -> str:
        raise RuntimeError("no text")

    __str__ = __repr__


def test_log_handler_reports_a_record_that_cannot_be_formatted_and_raises_nothing():
    """A library's wrong `%d` once raised in the middle of the library's own work."""
    events: list[str] = []
    logger = logging.Logger("library")
    logger.addHandler(LogHandler(lambda event, cause, **fields: events.append(cause), "logged"))
    logger.warning("%d models", "many")
    logger.warning(Unprintable())
    logger.warning("it failed", exc_info=Unprintable())
    assert [cause.partition(", logged")[0] for cause in events] == [
        "A log message could not be formatted (TypeError): '%d models'",
        "A log message could not be formatted (RuntimeError): 'Unprintable'",
        "A log message could not be formatted (RuntimeError): 'it failed'",
    ]
    assert all(__file__ in cause for cause in events)


def test_log_handler_writes_a_log_record_as_an_event_with_its_traceback():
    events: list[tuple[str, str, dict]] = []
    handler = LogHandler(lambda event, cause, **fields: events.append((event, cause, fields)), "logged")
    logger = logging.Logger("library")
    logger.addHandler(handler)
    logger.info("not this")
    try:
        raise ValueError("wrong")
    except ValueError:
        logger.exception("it %s", "failed")
    ((event, cause, fields),) = events
    assert (event, cause) == ("logged", "it failed: ValueError('wrong')")
    assert (fields["level"], fields["logger"]) == ("error", "library")
    assert "Traceback" in fields["traceback"]
