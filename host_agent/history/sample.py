"""A sample: statistics about memory, requests and tokens at one time, or over a span of time. Pure."""

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
"""The figures that are averaged over a span of time."""
PEAKS = ("queued", "running", "parked")
"""The figures of which a span of time has the maximum, so that a short queue remains visible."""
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
"""The figures that are summed over a span of time."""
FIGURES = (*MEANS, *PEAKS, *SUMS)  # the packed form has this order: append new figures at the end
UNKNOWN = math.nan


@dataclass(frozen=True)
class Sample:
    """Statistics at the moment `time` (seconds since 1970), or over the span of time that begins then.

    `figures` maps the names of statistics, listed in FIGURES, to their values; a name is missing if its value
    is unknown.
    """

    time: int
    figures: Mapping[str, float] = field(default_factory=dict)


def pack(sample: Sample) -> bytes:
    """Encode the sample's values as 4-byte floats, which are precise enough for a plot."""
    values = (sample.figures.get(name, UNKNOWN) for name in FIGURES)
    return struct.pack(f"<{len(FIGURES)}f", *values)


def unpack(time: int, packed: bytes) -> Sample:
    """Return the sample whose values `pack` has encoded, even if a version of Vestal with fewer or more
    statistics encoded them. `time` is the sample's time in seconds since 1970.
    """
    count = min(len(packed) // 4, len(FIGURES))
    values = struct.unpack(f"<{count}f", packed[: 4 * count])
    known = {name: value for name, value in zip(FIGURES, values, strict=False) if math.isfinite(value)}
    return Sample(time, known)


def join(time: int, samples: Iterable[Sample]) -> Sample:
    """Combine samples into one sample for the span that begins at `time`. Take the mean of each figure in
    MEANS, the maximum of each in PEAKS, and the sum of each in SUMS.

    Samples in which a figure is unknown do not count for that figure. A figure that no sample knows is
    unknown in the result, too; without samples, all are.
    """
    known: dict[str, list[float]] = {}
    for sample in samples:
        for name, value in sample.figures.items():
            known.setdefault(name, []).append(value)
    joined = {name: sum(values) for name, values in known.items()}
    joined |= {name: joined[name] / len(known[name]) for name in MEANS if name in known}
    joined |= {name: max(known[name]) for name in PEAKS if name in known}
    return Sample(time, joined)
