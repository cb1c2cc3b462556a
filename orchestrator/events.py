"""Write events to stdout as one JSON object per line, so that the container's log is a stream of events."""

from __future__ import annotations

import logging
import sys
from typing import Any

from vestal.web.events import EventWriter, LogHandler

_writer = EventWriter("orchestrator", lambda: sys.stdout)


def set_component(name: str) -> None:
    """Set the name of the service (`orchestrator`, `nightly`, `worker`) that following events are written
    with.
    """
    _writer.component = name


def emit(event: str, cause: str = "", **fields: Any) -> None:
    """Write one event to stdout as a line of JSON. `event` is its name in the past tense, and `cause` says in
    words why it happened, if that is known. `fields` are further facts, each written under its own name.
    """
    _writer.emit(event, cause, **fields)


def adopt_logger(name: str, level: int = logging.WARNING) -> None:
    """Turn the records that the named logger logs at `level` and above into events, and log them nowhere
    else.
    """
    logger = logging.getLogger(name)
    logger.handlers = [LogHandler(emit, "library_logged")]
    logger.setLevel(level)
    logger.propagate = False
