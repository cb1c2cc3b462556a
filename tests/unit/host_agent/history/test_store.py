"""Samples on disk: two tables of bounded size, which survive restarts, full disks, damage and clock
changes.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from host_agent.history.history import History
from host_agent.history.plot import COARSE_STEP_S, SPANS
from host_agent.history.sample import FIGURES, Sample
from host_agent.history.store import UNSAVED_MAX, WHAT, HistoryStore
from host_agent.journal import Journal
from host_agent.journal.journal import RETRY_S
from tests.disks.full_disk import small_disk
from vestal.best_effort.failures import FAILURES
from vestal.platform.memory import Memory

START = 1_700_000_100 // COARSE_STEP_S * COARSE_STEP_S
DAY_S = 86_400


@pytest.fixture
def journal(tmp_path: Path):
    journal = Journal(tmp_path / "journal.db")
    yield journal
    journal.close()
    FAILURES.succeeded(WHAT)


def times(samples: list[Sample]) -> list[int]:
    return [sample.time for sample in samples]


def test_history_samples_and_their_joined_five_minute_spans_survive_a_restart(journal, tmp_path):
    store = HistoryStore(journal)
    for number in range(45):  # 7.5 minutes
        store.add(Sample(START + 10 * number, {"tokens": 1, "queued": number}))
    journal.close()
    store = HistoryStore(Journal(tmp_path / "journal.db"))
    store.add(Sample(START + 450, {"tokens": 1}))
    assert times(store.fine(START)) == [START + 10 * number for number in range(46)]
    span, *rest = store.coarse(START)
    assert (span.time, span.figures) == (START, {"tokens": 30, "queued": 29})
    assert times(rest) == [START + 300 + 10 * number for number in range(16)]
    assert [sample.figures["tokens"] for sample in rest] == [1] * 16


def test_history_samples_of_a_stopped_agent_are_combined_into_coarse_samples_by_the_next_agent(journal):
    HistoryStore(journal).add(Sample(START, {"tokens": 5}))
    HistoryStore(journal).add(Sample(START + DAY_S, {"tokens": 7}))
    assert [(s.time, s.figures["tokens"]) for s in HistoryStore(journal).coarse(START)] == [
        (START, 5),
        (START + DAY_S, 7),
    ]


@pytest.mark.parametrize("jump_s", [-10 * DAY_S, -600, -5, 600, 400 * DAY_S])
def test_history_loses_and_repeats_no_sample_when_the_clock_is_set_forward_and_back(journal, jump_s):
    store, taken = HistoryStore(journal), []
    for number in range(120):
        at = START + 10 * number + (jump_s if 40 <= number < 80 else 0)
        taken.append(at)
        store.add(Sample(at, {"tokens": 1}))
    assert times(store.fine(0)) == taken
    assert sum(sample.figures["tokens"] for sample in store.coarse(0)) == 120
    assert len(store.coarse(0)) < 70


def test_history_tables_stay_bounded_and_keep_the_newest_samples(journal, tmp_path):
    store = HistoryStore(journal, fine_rows=60, coarse_rows=3)
    for number in range(400):
        store.add(Sample(START + 10 * number, {"tokens": 1}))
    fine, coarse = store.fine(0), store.coarse(0)
    assert len(fine) <= 60 + COARSE_STEP_S // 10
    assert times(fine)[-60:] == [START + 10 * number for number in range(340, 400)]
    assert times(coarse)[:3] == [START + 300 * number for number in (10, 11, 12)]


def test_three_hours_of_history_samples_take_at_most_250_kb_on_disk(journal, tmp_path):
    store = HistoryStore(journal)
    for number in range(1_080):
        store.add(Sample(START + 10 * number, dict.fromkeys(FIGURES, 1.5)))
    assert len(store.coarse(START)) == 35 + 30
    journal.close()
    assert (tmp_path / "journal.db").stat().st_size < 250_000


def test_history_samples_are_kept_in_memory_while_the_disk_is_full_and_stored_afterwards(tmp_path):
    (tmp_path / "disk").mkdir()
    with small_disk(tmp_path / "disk") as disk:
        journal = Journal(tmp_path / "disk" / "journal.db")
        store = HistoryStore(journal)
        store.add(Sample(START, {"tokens": 1}))
        disk.fill()
        for number in range(1, UNSAVED_MAX + 10):
            store.add(Sample(START + number, {"tokens": 1}))
        assert FAILURES.as_json()[WHAT]["failing_since"]
        assert len(store.fine(0)) >= UNSAVED_MAX
        assert times(store.fine(0))[-1] == START + UNSAVED_MAX + 9
        disk.free()
        time.sleep(RETRY_S)
        store.keep()
        assert FAILURES.as_json()[WHAT]["failing_since"] is None
        journal.close()
        after = HistoryStore(Journal(tmp_path / "disk" / "journal.db"))
        assert times(after.fine(0))[-1] == START + UNSAVED_MAX + 9
        assert len(after.fine(0)) >= UNSAVED_MAX


def test_damaged_history_file_is_replaced_and_new_samples_are_stored(tmp_path):
    path = tmp_path / "journal.db"
    journal = Journal(path)
    store = HistoryStore(journal)
    for number in range(200):
        store.add(Sample(START + 10 * number, dict.fromkeys(FIGURES, 1.0)))
    journal.close()
    raw = bytearray(path.read_bytes())
    raw[8192:-4096] = b"\xff" * (len(raw) - 12288)
    path.write_bytes(raw)
    journal = Journal(path)
    store = HistoryStore(journal)
    store.add(Sample(START + 5000, {"tokens": 2}))
    assert [sample.figures for sample in store.fine(0)] == [{"tokens": 2}]
    assert journal.replaced
    journal.close()


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def history(self, journal: Journal) -> History:
        memory = lambda: Memory(100, 40, 0, 0)  # noqa: E731
        return History(
            journal, HistoryStore(journal), 10.0, memory, lambda: START + self.now, lambda: self.now
        )


def health(tokens: int, instance: str = "a") -> dict[str, Any]:
    return {"instance": instance, "totals": {"tokens": tokens}, "requests": {"queued": 2}}


def test_history_shows_the_rate_between_probes_and_a_gap_where_the_gateway_was_replaced(journal):
    clock = Clock()
    history = clock.history(journal)
    drawn: list[dict[str, Any]] = []
    with history.listen(drawn.append):
        for body in (health(100), health(400), None, health(3, "b"), health(53, "b")):
            history.on_health(body)
            clock.now += 10
    rates = [sample["values"]["tokens_out_per_s"] for sample in drawn]
    assert rates == [None, 30, None, None, 5]
    assert [sample["values"]["queued"] for sample in drawn] == [2, 2, None, 2, 2]
    assert {sample["values"]["host_available_bytes"] for sample in drawn} == {40}
    assert history.newest == drawn[-1]
    hour = history.plot("hour")
    assert hour["range"] == "hour" and hour["step_s"] == 15
    assert [value for value in hour["series"]["tokens_out_per_s"] if value is not None] == [30, 5]


def test_history_takes_one_sample_of_rapid_health_probes_and_one_more_at_the_first_answered_probe(journal):
    clock = Clock()
    history = clock.history(journal)
    taken: list[dict[str, Any]] = []
    with history.listen(taken.append):
        for body in (None, None, health(1), health(2), None):
            history.on_health(body)
            clock.now += 0.5
    assert len(taken) == 2


def test_history_counts_each_restart_after_a_failure_in_one_sample_only(journal):
    clock = Clock()
    history = clock.history(journal)
    journal.record("mlx_engine", "child_restarting", "killed by SIGKILL", attempt=1)
    journal.record("orchestrator", "child_restarting", "asked for by hand", delay_s=0.0)
    counts = []
    for _ in range(2):
        history.on_health(health(1))
        assert history.newest
        counts.append(history.newest["values"]["restarts"])
        clock.now += 10
    assert counts == [1, 0]


@pytest.mark.parametrize("probe_each_s", [10.0, 2399.0, 2400.0, 1e9, float("inf")])
def test_history_plot_has_a_time_step_however_rarely_the_gateway_is_probed(journal, probe_each_s):
    """Earlier, GET /history failed if `supervision.health_interval_s` was 2400 or more."""
    history = History(journal, HistoryStore(journal), probe_each_s, wall=lambda: START)
    for name, span in SPANS.items():
        drawn = history.plot(name)
        assert 0 < drawn["step_s"] <= span.length_s
        assert START - span.length_s < drawn["times"][0] <= drawn["times"][-1] <= START
