"""What happened, one JSON object a line on stdout: the container's log is a stream of events."""

from __future__ import annotations

import logging
import sys
from typing import Any

from vestal.web.events import EventWriter, LogHandler

_writer = EventWriter("orchestrator", lambda: sys.stdout)


def set_component(name: str) -> None:
    """Name the service (`orchestrator`, `nightly`, `worker`) that the following events come from."""
    _writer.component = name


def emit(event: str, cause: str = "", **fields: Any) -> None:
    """Write one event: its name in the past tense, and its cause in words if there is one."""
    _writer.emit(event, cause, **fields)


def adopt_logger(name: str, level: int = logging.WARNING) -> None:
    """Make events of what the named logger logs from `level` on, and log it nowhere else."""
    logger = logging.getLogger(name)
    logger.handlers = [LogHandler(emit, "library_logged")]
    logger.setLevel(level)
    logger.propagate = False
