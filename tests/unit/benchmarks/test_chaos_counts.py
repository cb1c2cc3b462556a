"""What the chaos benchmark plans, counts, prints and saves."""

from __future__ import annotations

import json
import math
import random
from collections import Counter

import pytest

from benchmarks.chaos import state
from benchmarks.chaos.disturbances import AGENT, ENGINE, GATEWAY, TOGETHER, UPGRADE, is_due, plan
from benchmarks.chaos.histogram import Histogram
from benchmarks.chaos.pauses import NONE, SEVERAL, Death, Deaths
from benchmarks.chaos.state import State, StateError
from benchmarks.chaos.table import markdown
from benchmarks.chaos.tally import MAX_SAMPLES, Tally
from benchmarks.chaos.verdict import TextVerdict

OPTIONS = {"requests": 3, "seed": 1}


# --- the plan ---


def test_chaos_plan_kills_each_victim_equally_often_and_half_of_the_engines_by_sigkill():
    made = plan(40, (ENGINE, GATEWAY, AGENT, TOGETHER), upgrades=0, seed=1)
    assert Counter(each.what for each in made) == {ENGINE: 10, GATEWAY: 10, AGENT: 10, TOGETHER: 10}
    methods = Counter(each.method for each in made if each.what == ENGINE)
    assert methods == {"KILL": 5, "TERM": 2, "STOP": 1, "ABRT": 1, "OOM": 1}


def test_chaos_plan_is_equal_for_equal_seeds_only():
    victims = (ENGINE, GATEWAY)
    assert plan(20, victims, 3, seed=7) == plan(20, victims, 3, seed=7) != plan(20, victims, 3, seed=8)


def test_chaos_plan_spreads_its_upgrades_evenly_among_the_kills():
    at = [number for number, each in enumerate(plan(9, (ENGINE,), 3, seed=1)) if each.what == UPGRADE]
    assert at == [2, 5, 10]
    assert len(plan(0, (ENGINE,), 3, seed=1)) == 3


def test_chaos_kills_fall_due_evenly_over_the_requests_and_before_the_last_one():
    due = [next(n for n in range(101) if is_due(number, 4, n, 100)) for number in range(4)]
    assert due == [10, 30, 50, 70]


# --- pauses ---


def test_pause_of_a_stream_after_an_engine_kill_is_its_longest_gap_before_the_engine_is_replaced():
    deaths = Deaths()
    deaths.add(Death("engine TERM", at=10.0, replaced_at=13.0))
    assert [(cause, round(s, 3)) for cause, s in deaths.pauses([9.0, 10.1, 13.5, 20.0])] == [
        ("engine TERM", 3.4)
    ]
    assert list(deaths.pauses([11.0, 12.0])) == []  # it had not begun
    assert list(deaths.pauses([8.0, 9.0])) == []  # it was at its end


def test_stream_gap_spanning_two_kills_counts_as_one_pause_caused_by_several_kills():
    deaths = Deaths()
    deaths.add(Death("engine KILL", at=10.0, replaced_at=11.0))
    deaths.add(Death("gateway KILL", at=12.0, replaced_at=13.0))
    assert list(deaths.pauses([9.0, 15.0])) == [(SEVERAL, 6.0)]
    assert list(deaths.pauses([9.0, 11.5, 15.0])) == [("engine KILL", 2.5), ("gateway KILL", 3.5)]


def test_cause_of_a_failure_is_the_latest_kill_before_it():
    deaths = Deaths()
    deaths.add(Death("engine KILL", at=10.0))
    deaths.add(Death("gateway KILL", at=12.0))
    assert [deaths.cause_at(at) for at in (9.0, 11.0, 13.0)] == [NONE, "engine KILL", "gateway KILL"]


def test_histogram_percentiles_are_within_one_percent_of_the_exact_percentiles():
    draw = random.Random(1)
    seconds = [draw.lognormvariate(0, 2) + 0.01 for _ in range(999)]
    histogram = Histogram(seconds)
    for share, rank in ((0.5, 499), (0.99, 989)):
        assert math.isclose(histogram.percentile(share), sorted(seconds)[rank], rel_tol=0.01)
    assert histogram.max_s == max(seconds) and histogram.percentile(1.0) <= max(seconds)


def test_histogram_without_values_has_no_percentile():
    assert math.isnan(Histogram().percentile(0.5))


# --- counts and table ---


def _tally() -> Tally:
    tally = Tally()
    for verdict in (TextVerdict.EQUAL, TextVerdict.EQUAL, TextVerdict.DIFFERENT):
        tally.judged(verdict, "7 /api/chat: got 'a' instead of 'b'")
    tally.comebacks.cut_off, tally.comebacks.by_id, tally.comebacks.by_key = 5, 3, 2
    cause = tally.of("gateway KILL")
    cause.count, cause.refused, cause.busy = 4, 9, 1
    cause.pauses.add(2.5)
    tally.elapsed_s = 12.0
    return tally


@pytest.mark.parametrize("verdict", [TextVerdict.LOST, TextVerdict.DOUBLED])
def test_chaos_tally_fails_with_one_lost_or_repeated_answer(verdict):
    tally = _tally()
    assert list(tally.failures(least_equal=0.5)) == []
    tally.judged(verdict, "8 /v1/messages: 503")
    assert list(tally.failures(least_equal=0.5)) == [f"1 {verdict}"]


def test_chaos_run_fails_if_too_few_answers_equal_the_undisturbed_ones_or_a_kill_had_no_effect():
    tally = _tally()
    assert list(tally.failures(least_equal=0.999)) == ["66.67% equal, less than 99.9%"]
    tally.of("gateway KILL").without_effect = 1
    assert len(list(tally.failures(least_equal=0.5))) == 1


def test_chaos_tally_without_any_request_fails():
    assert list(Tally().failures(least_equal=0.999))


def test_chaos_tally_keeps_a_bounded_number_of_bounded_sample_texts():
    tally = Tally()
    for _ in range(100):
        tally.judged(TextVerdict.LOST, "x" * 10_000)
    assert tally.verdicts[TextVerdict.LOST] == 100
    assert len(tally.samples) == MAX_SAMPLES and sum(map(len, tally.samples)) < 20_000


def test_chaos_result_table_has_the_counts_in_columns_of_equal_width():
    text = markdown("Result", {"Machine": "this one"}, _tally())
    rows = [line for line in text.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    assert cells[2] == ["3", "0", "0", "1", "2 (66.67%)", "5", "3", "2"]
    assert cells[5] == ["gateway KILL", "4", "0", "1", "2.49 s", "2.49 s", "2.50 s", "9", "1"]
    assert len({len(row) for row in rows[:3]}) == len({len(row) for row in rows[3:]}) == 1
    assert "- Machine: this one" in text and "- different: 7 /api/chat" in text


# --- the state file ---


def test_saved_chaos_run_is_loaded_with_its_counts_and_texts(tmp_path):
    path = tmp_path / "state.json"
    state.save(path, OPTIONS, State(_tally(), ["one", "två 🙂"]))
    loaded = state.load(path, OPTIONS)
    assert loaded.tally.to_json() == _tally().to_json()
    assert loaded.texts == ["one", "två 🙂"]
    assert list(tmp_path.iterdir()) == [path]


def test_chaos_run_without_a_saved_file_starts_from_zero(tmp_path):
    loaded = state.load(tmp_path / "none.json", OPTIONS)
    assert (loaded.tally.sent, loaded.texts) == (0, [])


def test_chaos_run_with_options_unlike_the_saved_run_is_refused_naming_the_saved_options(tmp_path):
    path = tmp_path / "state.json"
    state.save(path, OPTIONS, State())
    with pytest.raises(StateError, match="requests=3 seed=1"):
        state.load(path, OPTIONS | {"seed": 2})


@pytest.mark.parametrize("text", ["", '{"options"', "[]", json.dumps({"options": OPTIONS, "tally": {}})])
def test_saved_chaos_file_that_is_truncated_or_of_another_format_is_refused_with_the_remedy(tmp_path, text):
    path = tmp_path / "state.json"
    path.write_text(text)
    with pytest.raises(StateError, match="delete it, or name another file"):
        state.load(path, OPTIONS)
