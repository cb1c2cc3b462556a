"""Count durations in buckets, which gives percentiles within 1 % in a bounded amount of memory. Pure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable

_GROWTH = 1.02
_LEAST_S = 0.001


class Histogram:
    """Counts durations in buckets, each 2 % longer than the one before, so that percentiles are within 1 % of
    the true ones. All durations up to a millisecond count as one millisecond. `max_s`, the longest duration,
    is exact. The durations in `seconds` are counted when the histogram is created.
    """

    def __init__(self, seconds: Iterable[float] = ()) -> None:
        self.max_s = 0.0
        self._buckets: Counter[int] = Counter()
        for each in seconds:
            self.add(each)

    def __len__(self) -> int:
        return self._buckets.total()

    def add(self, seconds: float) -> None:
        """Count a duration."""
        self.max_s = max(self.max_s, seconds)
        self._buckets[round(math.log(max(seconds, _LEAST_S) / _LEAST_S, _GROWTH))] += 1

    def percentile(self, share: float) -> float:
        """Return the percentile in seconds by nearest rank, for a `share` from 0 to 1; NaN if nothing was
        counted.
        """
        rank, passed = max(1, math.ceil(share * len(self))), 0
        for bucket, count in sorted(self._buckets.items()):
            passed += count
            if passed >= rank:
                return min(self.max_s, _LEAST_S * _GROWTH**bucket)
        return math.nan

    def to_json(self) -> dict[str, object]:
        """Return the histogram as a dictionary that `from_json` reads."""
        return {"max_s": self.max_s, "buckets": sorted(self._buckets.items())}

    @classmethod
    def from_json(cls, kept: dict[str, object]) -> Histogram:
        """Return the histogram that `to_json` wrote. Raises LookupError, TypeError or ValueError if `kept` is
        not one.
        """
        histogram = cls()
        histogram.max_s = float(kept["max_s"])  # type: ignore[arg-type]
        histogram._buckets = Counter(dict(kept["buckets"]))  # type: ignore[call-overload]
        return histogram
