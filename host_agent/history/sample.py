"""A sample: the figures about memory, requests and tokens at one time, or over one span of time. Pure."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

MEANS = (
    "weights_bytes",
    "kv_bytes",
    "prompt_cache_bytes",
    "in_use_bytes",
    "memory_limit_bytes",
    "host_available_bytes",
    "host_total_bytes",
)
"""Figures of which a span has the mean."""
PEAKS = ("queued", "running", "parked")
"""Figures of which a span has the highest: a short queue is not averaged away."""
SUMS = (
    "counted_s",  # the seconds in which the following counts grew
    "prompt_tokens",
    "tokens",
    "first_token_s",  # the sum of the waits for the first token, in s, over `first_tokens` answers
    "first_tokens",
    "cache_hits",
    "cache_misses",
    "restarts",
)
"""Figures that add up."""
FIGURES = (*MEANS, *PEAKS, *SUMS)  # the order is that of the packed form: append new figures at the end
UNKNOWN = math.nan


@dataclass(frozen=True)
class Sample:
    """The figures of the moment `time` (seconds since 1970), or of the span of time that begins then.

    `figures` has those of FIGURES that were known.
    """

    time: int
    figures: Mapping[str, float] = field(default_factory=dict)


def pack(sample: Sample) -> bytes:
    """Return the figures as 4-byte floats, which are exact enough for a plot."""
    values = (sample.figures.get(name, UNKNOWN) for name in FIGURES)
    return struct.pack(f"<{len(FIGURES)}f", *values)


def unpack(time: int, packed: bytes) -> Sample:
    """Return the sample that `pack` wrote, perhaps in a version of Vestal with fewer or more figures."""
    count = min(len(packed) // 4, len(FIGURES))
    values = struct.unpack(f"<{count}f", packed[: 4 * count])
    known = {name: value for name, value in zip(FIGURES, values, strict=False) if math.isfinite(value)}
    return Sample(time, known)


def join(time: int, samples: Iterable[Sample]) -> Sample:
    """Return one sample of the span that begins at `time`, made of the samples within it."""
    known: dict[str, list[float]] = {}
    for sample in samples:
        for name, value in sample.figures.items():
            known.setdefault(name, []).append(value)
    joined = {name: sum(values) for name, values in known.items()}
    joined |= {name: joined[name] / len(known[name]) for name in MEANS if name in known}
    joined |= {name: max(known[name]) for name in PEAKS if name in known}
    return Sample(time, joined)
