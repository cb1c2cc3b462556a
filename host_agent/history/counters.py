"""Read the statistics in the gateway's response to GET /health, and compute its counters' growth. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

COUNTERS = ("prompt_tokens", "tokens", "first_token_s", "first_tokens", "cache_hits", "cache_misses")
MEMORY = {
    "weights_bytes": "weights_bytes",
    "kv_bytes": "kv_bytes",
    "prompt_cache_bytes": "prompt_cache_bytes",
    "in_use_bytes": "in_use_bytes",
    "limit_bytes": "memory_limit_bytes",
}
"""The fields of `memory` in the response, and the names of the figures that they become."""
PHASES = ("queued", "running", "parked")


@dataclass(frozen=True)
class Reading:
    """The values of a gateway's counters at the time `at` (monotonic, in seconds).

    All counters are 0 when a gateway starts. `instance` identifies the gateway's process.
    """

    instance: str
    at: float
    counters: Mapping[str, float]


def read(body: Mapping[str, Any], at: float) -> tuple[dict[str, float], Reading]:
    """Return two things from `body`, the gateway's response to GET /health: the statistics about memory and
    requests, by name, and a Reading, which holds the values of the gateway's counters.

    `at` is when the response arrived (monotonic, in seconds). `growth` computes from two Readings how much
    each counter has grown.

    Values that are not numbers are left out. Until the engine has reported for the first time, `body` has no
    memory limit, and no statistics about memory are returned.
    """
    memory, requests, totals = (_object(body, name) for name in ("memory", "requests", "totals"))
    figures = {}
    if _number(memory.get("limit_bytes")):
        figures = {figure: _number(memory.get(name)) for name, figure in MEMORY.items()}
    figures |= {name: _number(requests.get(name)) for name in PHASES}
    counters = {name: _number(totals.get(name)) for name in COUNTERS}
    return _known(figures), Reading(str(body.get("instance")), at, _known(counters))


def growth(before: Reading | None, now: Reading) -> dict[str, float]:
    """Return how much each counter grew between two readings, and the seconds between them (`counted_s`).

    Return an empty dict if that is unknown: the readings are of different gateways, no time has passed
    between them, or a counter has become smaller.
    """
    if before is None or before.instance != now.instance or now.at <= before.at:
        return {}
    grown = {
        name: now.counters[name] - before.counters[name] for name in now.counters if name in before.counters
    }
    if not grown or min(grown.values()) < 0:
        return {}
    return grown | {"counted_s": now.at - before.at}


def _object(body: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = body.get(name)
    return value if isinstance(value, dict) else {}


def _number(value: object) -> float | None:
    """Return the value if it is a number of 0 or more that fits into a 4-byte float, else None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if 0 <= value < 2.0**100 and math.isfinite(value) else None


def _known(values: Mapping[str, float | None]) -> dict[str, float]:
    return {name: value for name, value in values.items() if value is not None}
