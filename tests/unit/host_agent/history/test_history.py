"""The pure parts of the history: rates come from one gateway's counters only, and unknown figures stay
unknown.
"""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from host_agent.history import counters, plot
from host_agent.history.counters import COUNTERS, Reading, growth
from host_agent.history.plot import SERIES, SPANS, Span, start_of
from host_agent.history.sample import FIGURES, MEANS, PEAKS, SUMS, Sample, join, pack, unpack

NOW = 1_700_000_000
NUMBERS = st.floats(min_value=0, max_value=2.0**50)
FIGURE_SETS = st.dictionaries(st.sampled_from(FIGURES), NUMBERS)
SAMPLES = st.builds(Sample, st.integers(NOW - 8 * 86_400, NOW + 86_400), FIGURE_SETS)
HEALTH: dict[str, Any] = {
    "instance": "a",
    "memory": {
        "limit_bytes": 100,
        "in_use_bytes": 60,
        "weights_bytes": 40,
        "kv_bytes": 15,
        "prompt_cache_bytes": 5,
    },
    "requests": {"queued": 1, "running": 2, "parked": 0, "slots": 4},
    "totals": dict(zip(COUNTERS, (10, 20, 0.5, 1, 3, 1), strict=True)),
}


def reading(at: float, instance: str = "a", **counts: float) -> Reading:
    return Reading(instance, at, dict.fromkeys(COUNTERS, 0.0) | counts)


def test_history_takes_memory_use_and_request_counts_and_counters_from_a_health_answer():
    figures, now = counters.read(HEALTH, 7.0)
    assert figures == {
        "memory_limit_bytes": 100, "in_use_bytes": 60, "weights_bytes": 40, "kv_bytes": 15,
        "prompt_cache_bytes": 5, "queued": 1, "running": 2, "parked": 0,
    }  # fmt: skip
    assert now == Reading("a", 7.0, HEALTH["totals"])


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"memory": None, "requests": [], "totals": "x"},
        {"memory": {"limit_bytes": 0, "in_use_bytes": 0, "weights_bytes": 0}},  # no engine has reported yet
        {"memory": {"limit_bytes": True}, "requests": {"queued": "1", "running": -1, "parked": 1e300}},
        {"totals": {"tokens": math.nan, "prompt_tokens": math.inf}},
    ],
)
def test_history_takes_no_figures_and_no_counters_from_a_health_answer_that_lacks_them_or_is_malformed(body):
    figures, now = counters.read(body, 1.0)
    assert (figures, now.counters) == ({}, {})


def test_growth_between_two_readings_of_one_gateway_is_the_difference_of_their_counters():
    grown = growth(reading(10.0, tokens=5), reading(20.0, tokens=25, prompt_tokens=3))
    assert (grown["tokens"], grown["prompt_tokens"], grown["counted_s"]) == (20, 3, 10)


@pytest.mark.parametrize(
    ("before", "now"),
    [
        (None, reading(20.0, tokens=500)),
        (reading(10.0, tokens=500), reading(20.0, "b", tokens=3)),  # another gateway began at 0
        (reading(10.0, tokens=500), reading(20.0, tokens=499)),
        (reading(20.0, tokens=5), reading(20.0, tokens=5)),
        (reading(20.0, tokens=5), reading(10.0, tokens=50)),
    ],
)
def test_growth_between_readings_of_different_gateways_or_of_one_moment_is_unknown(before, now):
    assert growth(before, now) == {}


@given(st.lists(st.tuples(st.sampled_from("ab"), NUMBERS, NUMBERS), min_size=2))
def test_history_rate_is_never_negative_for_any_sequence_of_readings(readings):
    before = None
    for instance, at, tokens in readings:
        now = reading(at, instance, tokens=tokens)
        shown = plot.values(growth(before, now))
        assert shown["tokens_out_per_s"] is None or shown["tokens_out_per_s"] >= 0
        before = now


@given(FIGURE_SETS)
def test_history_sample_packed_and_unpacked_keeps_its_figures_within_a_millionth(figures):
    got = unpack(NOW, pack(Sample(NOW, figures)))
    assert got.time == NOW and set(got.figures) == set(figures)
    for name, value in figures.items():
        assert math.isclose(got.figures[name], value, rel_tol=1e-6, abs_tol=1e-37)


def test_history_sample_packed_by_another_version_keeps_the_figures_common_to_both():
    packed = pack(Sample(NOW, {"weights_bytes": 1.0, "restarts": 2.0}))
    assert unpack(NOW, packed[:-4]).figures == {"weights_bytes": 1.0}
    assert unpack(NOW, packed + b"\0\0\0\0" + b"x").figures == {"weights_bytes": 1.0, "restarts": 2.0}
    assert unpack(NOW, b"").figures == {}


def test_joined_history_samples_have_the_mean_memory_the_peak_queue_and_the_sum_of_counts():
    first, second = {"kv_bytes": 2, "queued": 0, "tokens": 5}, {"kv_bytes": 4, "queued": 7, "tokens": 6}
    joined = join(0, [Sample(0, first), Sample(9, second), Sample(9)])
    assert joined.figures == {"kv_bytes": 3, "queued": 7, "tokens": 11}


@settings(max_examples=25)
@given(st.lists(SAMPLES, max_size=20), st.integers(1, 5))
def test_history_samples_joined_in_parts_have_the_same_sums_as_joined_at_once(samples, parts):
    at_once = join(NOW, samples).figures
    joined = join(NOW, [join(NOW, samples[part::parts]) for part in range(parts)]).figures
    assert set(joined) == set(at_once)
    for name in at_once:
        if name in SUMS + PEAKS:
            assert joined[name] == pytest.approx(at_once[name])
        else:
            known = [sample.figures[name] for sample in samples if name in sample.figures]
            assert min(known) * (1 - 1e-9) <= joined[name] <= max(known) * (1 + 1e-9)


@pytest.mark.parametrize("name", SPANS)
@settings(max_examples=25)
@given(samples=st.lists(SAMPLES, max_size=30), now=st.floats(NOW - 1e6, NOW + 1e6))
def test_history_plot_has_a_bounded_regular_time_grid_with_null_where_no_sample_is(name, samples, now):
    span = SPANS[name]
    drawn = plot.plot(samples, span, now)
    times = drawn["times"]
    assert len(times) == span.length_s // span.step_s <= 400
    assert {late - early for early, late in zip(times, times[1:], strict=False)} == {span.step_s}
    assert times[-1] <= now < times[-1] + span.step_s
    assert set(drawn["series"]) == set(SERIES)
    known = {start_of(sample.time, span.step_s) for sample in samples if sample.figures}
    for values in drawn["series"].values():
        assert len(values) == len(times)
        for time, value in zip(times, values, strict=True):
            assert value is None or (value >= 0 and time in known)


@given(least_s=st.floats(0.001) | st.just(math.inf))
def test_history_span_with_longer_steps_has_at_least_one_step_and_never_shorter_ones(least_s):
    for span in SPANS.values():
        longer = span.with_steps_of(least_s)
        assert span.step_s <= longer.step_s <= span.length_s == longer.length_s
        assert longer.step_s % span.step_s == 0
        assert longer.step_s >= min(least_s, span.length_s)


def test_history_plot_shows_the_rates_and_means_of_each_time_step():
    step = {"counted_s": 10, "tokens": 200, "prompt_tokens": 0, "first_token_s": 1.5, "first_tokens": 2}
    looked = {"cache_hits": 3, "cache_misses": 1, "restarts": 1}
    drawn = plot.plot([Sample(NOW - 10, {**step, **looked}), Sample(NOW - 5, step)], Span(60, 30), NOW)
    series = {name: values[-1] for name, values in drawn["series"].items()}
    assert (series["tokens_out_per_s"], series["tokens_in_per_s"], series["first_token_s"]) == (20, 0, 0.75)
    assert (series["cache_hit_fraction"], series["restarts"], series["kv_bytes"]) == (0.75, 1, None)
    assert {values[0] for values in drawn["series"].values()} == {None}


def test_history_ratio_with_a_zero_divisor_is_unknown_instead_of_zero():
    shown = plot.values({"first_token_s": 0, "first_tokens": 0, "cache_hits": 0, "cache_misses": 0})
    assert (shown["first_token_s"], shown["cache_hit_fraction"]) == (None, None)
    assert set(MEANS) < set(shown)
