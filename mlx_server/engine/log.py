"""The engine's log: one JSON object on each line of stderr, which the gateway redirects to a file."""

from __future__ import annotations

import itertools
import json
import sys
import time
from typing import Any

from vestal.best_effort.output import write_line

_numbers = itertools.count(1)


def log_event(event: str, cause: str = "", **fields: Any) -> None:
    """Write one event to the log, as a JSON object with the time, the name `event` (in the past tense), the
    `cause` (left out if it is empty) and `fields`.
    """
    body = {"ts": round(time.time(), 3), "seq": next(_numbers), "component": "mlx_engine", "event": event}
    if cause:
        body["cause"] = cause
    write_line(sys.stderr, json.dumps(body | fields, ensure_ascii=False, default=str))
