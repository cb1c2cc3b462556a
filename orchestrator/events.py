"""Events as one JSON object per line on stdout, so that the container's log is a stream of events."""

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
    """Turn what the named logger logs at `level` and above into events, and log it nowhere else."""
    logger = logging.getLogger(name)
    logger.handlers = [LogHandler(emit, "library_logged")]
    logger.setLevel(level)
    logger.propagate = False
