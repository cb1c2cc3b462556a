"""What happened, one JSON object a line on stdout: the container's log is a stream of events."""

from __future__ import annotations

import itertools
import json
import logging
import sys
import threading
import time
from typing import Any

from orchestrator.unicode import replace_invalid_unicode

_seq = itertools.count(1)
_lock = threading.Lock()
_component = "orchestrator"


def set_component(name: str) -> None:
    """Name the service (`orchestrator`, `nightly`) that the following events come from."""
    global _component
    _component = name


def emit(event: str, cause: str = "", **fields: Any) -> None:
    """Write one event: past tense, with its cause in words where there is one."""
    record: dict[str, Any] = {"ts": round(time.time(), 3), "seq": next(_seq), "component": _component}
    record |= {"event": event, **({"cause": cause} if cause else {}), **fields}
    line = replace_invalid_unicode(json.dumps(record, ensure_ascii=False, default=str))
    with _lock:
        print(line, file=sys.stdout, flush=True)


class EventHandler(logging.Handler):
    """Brings a library's log records into the stream of events."""

    def emit(self, record: logging.LogRecord) -> None:
        fields: dict[str, Any] = {"logger": record.name, "level": record.levelname.lower()}
        if record.exc_info and record.exc_info[1] is not None:
            fields["error"] = repr(record.exc_info[1])
        emit("library_logged", record.getMessage(), **fields)


def adopt_logger(name: str, level: int = logging.WARNING) -> None:
    """Send what the named logger says from `level` on to the stream of events, and nowhere else."""
    logger = logging.getLogger(name)
    logger.handlers = [EventHandler()]
    logger.setLevel(level)
    logger.propagate = False
