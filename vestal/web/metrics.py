"""The text of GET /metrics, written by prometheus_client from values that are read at each request.

https://prometheus.io/docs/instrumenting/exposition_formats/

Services import this module at the first GET /metrics, since prometheus_client takes more than 1 MB of memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from prometheus_client import generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
    SummaryMetricFamily,
)
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4 as CONTENT_TYPE
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from vestal.web.histogram import Histogram

__all__ = ["CONTENT_TYPE", "Metric", "counter", "gauge", "histogram", "render", "summary"]
Values = float | Mapping[Any, float]
"""One value, or one for each tuple of label values."""


class _MetricsCollector(Collector):
    def __init__(self, metrics: Iterable[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        return self._metrics


def render(metrics: Iterable[Metric]) -> str:
    """Return the metrics as Prometheus text."""
    return generate_latest(_MetricsCollector(metrics)).decode()


def gauge(name: str, about: str, values: Values, labels: tuple[str, ...] = ()) -> Metric:
    """Return a gauge: a metric that goes up and down.

    `about` is its help text. `values` is one number, or a number for each tuple of label values, in the order
    of the label names in `labels`.
    """
    family = GaugeMetricFamily(name, about, labels=labels)
    for key, value in _items(values):
        family.add_metric(key, value)
    return family


def counter(name: str, about: str, values: Values, labels: tuple[str, ...] = ()) -> Metric:
    """Return a counter: a metric that only grows. `name` ends in `_total`.

    `about` is its help text. `values` is one number, or a number for each tuple of label values, in the order
    of the label names in `labels`.
    """
    family = CounterMetricFamily(name, about, labels=labels)
    for key, value in _items(values):
        family.add_metric(key, value)
    return family


def summary(name: str, about: str, total: float, count: float) -> Metric:
    """Return a summary metric. `total` is the sum of the observations, and `count` their number."""
    return SummaryMetricFamily(name, about, count_value=int(count), sum_value=total)


def histogram(name: str, about: str, observed: Histogram) -> Metric:
    """Return a histogram metric: how many observations were at most as large as each bound, with the sum and
    the number of all observations.
    """
    bounds = [*(floatToGoString(bound) for bound in observed.bounds), "+Inf"]
    buckets = list(zip(bounds, observed.cumulative(), strict=True))
    return HistogramMetricFamily(name, about, buckets=buckets, sum_value=observed.total)


def _items(values: Values) -> Iterable[tuple[tuple[str, ...], float]]:
    return values.items() if isinstance(values, Mapping) else [((), values)]
