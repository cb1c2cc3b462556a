"""Arrange samples on the regular time grid of a plot. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from host_agent.history.sample import MEANS, PEAKS, Sample, join

FINE_STEP_S = 15
"""Longer than the time between two samples, so that each step of a plot has at least one."""
COARSE_STEP_S = 300


@dataclass(frozen=True)
class Span:
    """The time range that a plot shows, `length_s` seconds, and its resolution, steps of `step_s` seconds."""

    length_s: int
    step_s: int

    @property
    def is_fine(self) -> bool:
        """Return whether the plot needs the fine samples, because its steps are shorter than
        COARSE_STEP_S.
        """
        return self.step_s < COARSE_STEP_S

    def with_steps_of(self, least_s: float) -> Span:
        """Return this span if its steps are at least `least_s` seconds long, else a span of the same length
        with longer steps.

        The new step is the shortest multiple of `step_s` that is longer than `least_s`. If that is longer
        than the whole span, the span becomes one step.
        """
        if least_s <= self.step_s:
            return self
        within_s = min(least_s, self.length_s)
        return Span(self.length_s, min(self.length_s, start_of(within_s, self.step_s) + self.step_s))


SPANS = {
    "hour": Span(3600, FINE_STEP_S),
    "day": Span(86_400, COARSE_STEP_S),
    "week": Span(7 * 86_400, 6 * COARSE_STEP_S),
}


def start_of(time: float, step_s: int) -> int:
    """Return the start of the step of `step_s` seconds that contains `time`."""
    return math.floor(time / step_s) * step_s


def plot(samples: Iterable[Sample], span: Span, now: float) -> dict[str, Any]:
    """Return a plot of the samples as a dict: `step_s`, `times` (the start of each step of `span`, up to
    `now`), and `series`, which maps the name of each plotted series to a list with one value for each step.

    A value is None where it is unknown. Samples outside the span are ignored.
    """
    last = start_of(now, span.step_s)
    times = range(last - span.length_s + span.step_s, last + 1, span.step_s)
    steps: dict[int, list[Sample]] = {time: [] for time in times}
    for sample in samples:
        if (step := steps.get(start_of(sample.time, span.step_s))) is not None:
            step.append(sample)
    rows = [values(join(time, found).figures) for time, found in steps.items()]
    series = {name: [row[name] for row in rows] for name in SERIES}
    return {"step_s": span.step_s, "times": list(times), "series": series}


def values(figures: Mapping[str, float]) -> dict[str, float | None]:
    """Return the value of each plotted series, computed from a sample's statistics; None if it is unknown."""
    direct = {name: _rounded(figures.get(name)) for name in (*MEANS, *PEAKS, "restarts")}
    hits, misses = figures.get("cache_hits"), figures.get("cache_misses")
    looked_up = None if hits is None or misses is None else hits + misses
    return direct | {
        "tokens_in_per_s": _ratio(figures.get("prompt_tokens"), figures.get("counted_s")),
        "tokens_out_per_s": _ratio(figures.get("tokens"), figures.get("counted_s")),
        "first_token_s": _ratio(figures.get("first_token_s"), figures.get("first_tokens")),
        "cache_hit_fraction": _ratio(hits, looked_up),
    }


def _ratio(part: float | None, whole: float | None) -> float | None:
    return None if part is None or not whole else round(part / whole, 4)


def _rounded(value: float | None) -> float | None:
    """Round a value to a whole number, because it is a count or a number of bytes; None stays None."""
    return None if value is None else round(value)


SERIES = tuple(values({}))
