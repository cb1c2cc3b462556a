"""The engine's log: one JSON object a line on stderr, which its parent writes to a file."""

from __future__ import annotations

import itertools
import json
import sys
import time
from typing import Any

_numbers = itertools.count(1)


def log_event(event: str, cause: str = "", **fields: Any) -> None:
    """Write one event, named in the past tense, with its fields."""
    body = {"ts": round(time.time(), 3), "seq": next(_numbers), "component": "mlx_engine", "event": event}
    if cause:
        body["cause"] = cause
    line = json.dumps(body | fields, ensure_ascii=False, default=str)
    sys.stderr.write(line + "\n")  # at once: other threads write too
    sys.stderr.flush()
