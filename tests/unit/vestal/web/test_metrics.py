"""Prometheus text of figures that are read when they are asked for."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from vestal.web.histogram import Histogram
from vestal.web.metrics import counter, gauge, histogram, render, summary


def test_rendered_metrics_of_each_kind_are_parsed_by_prometheus():
    waits = Histogram((0.1, 1.0))
    for wait_s in (0.1, 0.5, 3.0):
        waits.observe(wait_s)
    text = render(
        [
            gauge("up", "Whether it works", 1),
            gauge("part_bytes", "By part", {("a", 'q"\n'): 2, ("b", "c"): 2.5}, ("part", "kind")),
            counter("calls_total", "Calls", {("x",): 3}, ("by",)),
            summary("run_seconds", "Running", 1.5, 2),
            histogram("wait_seconds", "Waiting", waits),
        ]
    )
    families = {family.name: family for family in text_string_to_metric_families(text)}
    samples = {(s.name, *sorted(s.labels.values())): s.value for f in families.values() for s in f.samples}
    assert samples["up",] == 1
    assert samples["part_bytes", "a", 'q"\n'] == 2
    assert samples["calls_total", "x"] == 3
    assert (samples["run_seconds_sum",], samples["run_seconds_count",]) == (1.5, 2)
    buckets = [samples["wait_seconds_bucket", bound] for bound in ("0.1", "1.0", "+Inf")]
    assert buckets == [1, 2, 3]
    assert (samples["wait_seconds_sum",], samples["wait_seconds_count",]) == (3.6, 3)
    assert families["run_seconds"].type == "summary"
    assert "_created" not in text and "python_info" not in text
