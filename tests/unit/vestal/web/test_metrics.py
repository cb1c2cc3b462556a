"""Prometheus text of figures that are read when they are asked for."""

from __future__ import annotations

from prometheus_client import Histogram
from prometheus_client.parser import text_string_to_metric_families

from vestal.web.metrics import counter, gauge, new_registry, render, summary


def test_render_shows_snapshot_and_registry_under_their_own_names():
    registry = new_registry()
    seconds = Histogram("wait_seconds", "Waiting", buckets=(0.1, 1.0), registry=registry)
    seconds.observe(0.5)
    text = render(
        lambda: [
            gauge("up", "Whether it works", 1),
            gauge("part_bytes", "By part", {("a", 'q"\n'): 2, ("b", "c"): 2.5}, ("part", "kind")),
            counter("calls_total", "Calls", {("x",): 3}, ("by",)),
            summary("run_seconds", "Running", 1.5, 2),
        ],
        registry,
    )
    families = {family.name: family for family in text_string_to_metric_families(text)}
    samples = {(s.name, *sorted(s.labels.values())): s.value for f in families.values() for s in f.samples}
    assert samples["up",] == 1
    assert samples["part_bytes", "a", 'q"\n'] == 2
    assert samples["calls_total", "x"] == 3
    assert (samples["run_seconds_sum",], samples["run_seconds_count",]) == (1.5, 2)
    assert samples["wait_seconds_bucket", "1.0"] == 1
    assert samples["wait_seconds_bucket", "0.1"] == 0
    assert families["run_seconds"].type == "summary"
    assert "_created" not in text and "python_info" not in text
