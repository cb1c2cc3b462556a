"""More threads are used only while other processes leave the cores idle, and only while that is faster."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_server.engine.blas_threads import other_processes, threads_for_products
from mlx_server.engine.blas_threads.thread_choice import StepThreadChoice, ThreadChoice
from mlx_server.engine.blas_threads.threads_for_products import ThreadsForProducts
from mlx_server.engine_environment import THREADS_CHOSEN


@pytest.mark.parametrize(("others", "threads"), [(0.0, 2), (0.1, 2), (0.3, 1), (1.0, 1), (2.0, 1), (None, 1)])
def test_blas_thread_choice_gives_one_thread_while_other_processes_use_the_cpu(others, threads):
    assert ThreadChoice(1, 2).choose(others, 0.0) == threads


def test_blas_thread_choice_doubles_the_pause_before_it_retries_more_threads_each_time_they_prove_slower():
    choice = ThreadChoice(1, 2)
    choice.record(1, 512, 2.0, 0.0)
    choice.record(2, 512, 4.0, 10.0)
    assert [choice.choose(0.0, now) for now in (10.0, 39.9, 40.1)] == [1, 1, 2]
    choice.record(1, 512, 2.0, 40.0)
    choice.record(2, 512, 4.0, 50.0)
    assert [choice.choose(0.0, now) for now in (109.0, 111.0)] == [1, 2]
    choice.record(1, 512, 2.0, 120.0)
    choice.record(2, 512, 1.0, 120.0)
    choice.record(2, 512, 9.0, 130.0)
    assert [choice.choose(0.0, now) for now in (159.0, 161.0)] == [1, 2]


@pytest.mark.parametrize(("seconds", "threads"), [(1.8, 2), (1.95, 1)])
def test_more_blas_threads_are_kept_only_if_they_are_clearly_faster(seconds, threads):
    choice = ThreadChoice(1, 2)
    choice.record(1, 512, 2.0, 0.0)
    choice.record(2, 512, seconds, 1.0)
    assert choice.choose(0.0, 2.0) == threads


def test_blas_thread_choice_measures_few_threads_again_if_their_last_measured_speed_is_outdated():
    choice = ThreadChoice(1, 2)
    choice.record(1, 512, 2.0, 0.0)
    choice.record(2, 512, 4.0, 60.0)  # perhaps the answers have become longer
    assert choice.choose(0.0, 60.0) == 1
    choice.record(1, 512, 7.0, 62.0)
    assert choice.choose(0.0, 62.0) == 2
    choice.record(2, 512, 4.0, 64.0)
    assert choice.choose(0.0, 64.0) == 2


def test_blas_thread_choice_ignores_the_speed_of_prefill_slices_with_few_tokens():
    choice = ThreadChoice(1, 2)
    choice.record(1, 512, 2.0, 0.0)
    choice.record(2, 3, 4.0, 10.0)
    choice.record(2, 512, 0.0, 10.0)
    assert choice.choose(0.0, 11.0) == 2


@given(st.lists(st.tuples(st.sampled_from([1, 2]), st.integers(0, 600), st.floats(0, 5), st.floats(0, 60))))
def test_blas_thread_choice_is_always_the_smaller_number_while_another_process_is_busy(slices):
    choice, now = ThreadChoice(1, 2), 0.0
    for threads, tokens, seconds, later in slices:
        now += later
        choice.record(threads, tokens, seconds, now)
        assert choice.choose(1.0, now) == 1
        assert choice.choose(0.0, now) in (1, 2)


class Machine:
    """A machine with two cores: what OpenBLAS is set to, and what /proc/stat says."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Any) -> None:
        self.set: list[int] = []
        self.running = 2
        self.now_s = self.busy_s = self.own_s = 0.0
        self._stat = folder / "stat"
        self._ticks = threads_for_products.os.sysconf("SC_CLK_TCK")
        monkeypatch.setenv(THREADS_CHOSEN, "1")
        monkeypatch.setattr(other_processes, "_PROC_STAT", self._stat)
        monkeypatch.setattr(threads_for_products.blas, "threads", lambda: (self.set or [1])[-1])
        monkeypatch.setattr(threads_for_products.blas, "most_narrow_rows", lambda: 32)
        monkeypatch.setattr(threads_for_products.blas, "set_threads", self.set.append)
        monkeypatch.setattr(threads_for_products.os, "sched_getaffinity", lambda _: {0, 1})
        monkeypatch.setattr(threads_for_products.time, "monotonic", lambda: self.now_s)
        monkeypatch.setattr(other_processes.time, "process_time", lambda: self.own_s)
        self.run(0.0, 0.0, 0.0)

    def run(self, seconds: float, others: float, own: float) -> None:
        """Let `seconds` pass, in which this process and others keep so many cores busy."""
        self.now_s += seconds
        self.own_s += own * seconds
        self.busy_s += (own + others) * seconds
        self._stat.write_text(
            f"cpu  {int(self.busy_s * self._ticks)} 0 0 999 0 0 0 0 0 0\nprocs_running {self.running}\n"
        )


@pytest.fixture
def machine(monkeypatch, tmp_path) -> Iterator[Machine]:
    threads_for_products._this_process.cache_clear()
    yield Machine(monkeypatch, tmp_path)
    threads_for_products._this_process.cache_clear()


def test_prefill_slice_gets_more_blas_threads_while_only_this_process_is_busy(machine):
    threads = ThreadsForProducts()
    for _ in range(3):
        threads.begin()
        machine.run(0.7 if machine.set[-1:] == [2] else 1.0, others=0.05, own=1.0)
        threads.end(512)
    assert machine.set == [2, 1, 2, 1]  # nothing is known before the first slice


def test_prefill_slice_gets_one_blas_thread_beside_a_busy_process(machine):
    threads = ThreadsForProducts()
    for _ in range(3):
        threads.begin()
        machine.run(1.0, others=0.9, own=1.0)
        threads.end(512)
    assert machine.set == []


@pytest.mark.parametrize(("running", "set_to"), [(1, [2, 1]), (2, [])])
def test_prefill_slice_after_a_long_idle_time_gets_as_many_blas_threads_as_the_present_load_allows(
    machine, running, set_to
):
    threads = ThreadsForProducts()
    threads.begin()
    threads.end(0)
    machine.running = running
    machine.run(60.0, others=0.0, own=0.0)
    threads.begin()
    threads.end(512)
    assert machine.set == set_to


@pytest.mark.parametrize("fault", ["user's number", "another BLAS", "no /proc"])
def test_blas_threads_stay_unchanged_if_the_user_set_them_or_openblas_or_proc_stat_is_missing(
    machine, monkeypatch, fault
):
    if fault == "user's number":
        monkeypatch.delenv(THREADS_CHOSEN)
    elif fault == "another BLAS":
        monkeypatch.setattr(threads_for_products.blas, "threads", lambda: 0)
    threads = ThreadsForProducts()
    for _ in range(3):
        if fault == "no /proc":
            machine._stat.unlink(missing_ok=True)
        threads.begin()
        if fault != "no /proc":
            machine.run(1.0, others=0.0, own=1.0)
        threads.end(512)
    assert machine.set == []


def test_decode_steps_of_a_single_answer_get_more_blas_threads_after_a_third_of_a_second():
    choice = StepThreadChoice(1, 2)
    for _ in range(4):
        assert choice.choose(1, 0.0, 0.0) == 1
        choice.record(1, 1, 0.08, 0.0)
    assert choice.choose(1, 0.0, 0.0) == 2


def test_decode_steps_start_with_few_blas_threads_then_try_more_and_return_to_few_if_more_are_slower():
    choice = StepThreadChoice(1, 2)
    for _ in range(3):
        assert choice.choose(8, 0.0, 0.0) == 1
        choice.record(8, 1, 0.13, 0.0)
    assert [choice.choose(rows, others, 0.0) for rows, others in ((8, 0.0), (8, 0.5), (16, 0.0))] == [2, 1, 1]
    for _ in range(3):
        choice.record(8, 2, 0.3, 10.0)
    assert [choice.choose(8, 0.0, now) for now in (10.0, 39.0, 41.0)] == [1, 1, 2]


def test_decode_step_speed_is_not_measured_while_blas_threads_alternate_between_steps():
    choice = StepThreadChoice(1, 2)
    for _ in range(100):  # never 24 tokens or 0.3 s in a row with the same threads
        choice.record(8, 1, 0.1, 0.0)
        choice.record(8, 2, 0.1, 0.0)
    assert choice.choose(8, 0.0, 0.0) == 1


@pytest.mark.parametrize(("tokens", "narrow_rows", "set_to"), [(32, 32, [2, 1]), (33, 32, []), (32, 0, [])])
def test_short_prompt_gets_all_threads_if_our_own_library_computes_its_matrix_products(
    machine, monkeypatch, tokens, narrow_rows, set_to
):
    monkeypatch.setattr(threads_for_products.blas, "most_narrow_rows", lambda: narrow_rows)
    machine.running = 3  # other processes have just sent the prompt
    threads = ThreadsForProducts()
    threads.begin(tokens)
    threads.end(tokens)
    assert machine.set == set_to


def test_decode_steps_on_an_idle_machine_get_more_blas_threads_until_no_further_step_follows(machine):
    threads = ThreadsForProducts()
    for _ in range(12):
        threads.begin_step(8)
        machine.run(0.1 if machine.set == [] else 0.07, others=0.05, own=1.0)
    assert machine.set == [2]
    threads.rest()
    assert machine.set == [2, 1]


def test_decode_steps_beside_a_busy_process_keep_one_blas_thread(machine):
    threads = ThreadsForProducts()
    for _ in range(30):
        threads.begin_step(8)
        machine.run(0.1, others=0.6, own=1.0)
    assert machine.set == []


def test_blas_thread_choice_for_decode_steps_ignores_the_time_of_prefill_slices_and_idle_phases(machine):
    threads = ThreadsForProducts()
    for _ in range(12):
        threads.begin_step(8)
        machine.run(0.1, others=0.0, own=1.0)
        threads.begin()
        threads.begin_step(8)  # answers are continued within the slice
        machine.run(1.0, others=0.0, own=1.0)
        threads.end(0)
        threads.begin_step(8)
        machine.run(0.1, others=0.0, own=1.0)
        threads.rest()
    threads.begin_step(8)
    assert machine.set == [2, 1] * 12  # for the slices; the steps' speed was never known


def test_blas_thread_choice_for_fast_decode_steps_uses_the_cpu_load_of_the_last_long_interval(machine):
    machine.running = 3  # this process' own threads, which compute in the background
    threads = ThreadsForProducts()
    for _ in range(40):
        threads.begin_step(16)
        machine.run(0.02 if machine.set == [] else 0.015, others=0.0, own=2.0)
    assert machine.set == [2]


def test_decode_steps_are_measured_only_while_they_follow_each_other_without_a_wait(machine, monkeypatch):
    """The first step after a wait seemed to take no time, because it is measured until the next one begins.
    Between steps with drafts, few threads seemed so fast that more of them were not used for minutes.
    """
    measured: list[tuple[int, float]] = []

    def record(self, rows: int, threads: int, seconds: float, now: float) -> None:
        measured.append((rows, round(seconds, 3)))

    monkeypatch.setattr(StepThreadChoice, "record", record)
    threads = ThreadsForProducts()
    for waited, seconds in (
        (False, 0.01),
        (False, 0.1),
        (False, 0.12),
        (True, 0.02),
        (False, 0.13),
        (False, 0.2),
    ):
        threads.begin_step(8, waited=waited)
        machine.run(seconds, others=0.0, own=1.0)
    threads.begin_step(32, waited=True)
    machine.run(0.3, others=0.0, own=1.0)
    threads.end_step()
    for seconds in (0.03, 0.14, 0.0):
        threads.begin_step(8)
        machine.run(seconds, others=0.0, own=1.0)
    assert measured == [(8, 0.1), (8, 0.13), (32, 0.3), (8, 0.14)]


def test_decode_steps_with_drafts_are_measured_from_their_begin_to_their_end(machine):
    threads = ThreadsForProducts()
    for _ in range(12):
        threads.begin_step(32, waited=True)
        machine.run(0.15 if machine.set == [] else 0.1, others=0.0, own=1.0)
        threads.end_step()
        machine.run(0.5, others=0.0, own=1.0)
    assert machine.set == [2]


def test_model_loaded_while_another_uses_more_blas_threads_still_returns_to_few(machine):
    """It took the number at that moment for the smallest one, and never changed it again."""
    answering = ThreadsForProducts()
    answering.begin(8)
    assert machine.set == [2]
    embedding = ThreadsForProducts()
    answering.end(8)
    machine.running = 1
    machine.run(1.0, others=0.0, own=1.0)
    embedding.begin()
    embedding.end(0)
    assert machine.set == [2, 1, 2, 1]


def test_decode_steps_get_their_blas_threads_again_after_a_batch_of_another_model(machine):
    """Each model believed that OpenBLAS had the number of threads that the model itself had set last, so
    answers beside texts to embed were computed with one thread.
    """
    answering, embedding = ThreadsForProducts(), ThreadsForProducts()
    for _ in range(6):
        answering.begin_step(8)
        machine.run(0.1 if machine.set == [] else 0.07, others=0.0, own=1.0)
    assert machine.set == [2]
    embedding.begin()
    machine.run(0.2, others=0.0, own=1.0)
    embedding.end(0)
    answering.begin_step(8)
    assert machine.set == [2, 1, 2]


def test_decode_steps_between_batches_of_another_model_are_not_measured(machine, monkeypatch):
    """Their times include the other model's. More threads seemed to gain nothing, and were not used for half
    a minute.
    """
    measured: list[float] = []
    monkeypatch.setattr(StepThreadChoice, "record", lambda self, rows, threads, s, now: measured.append(s))
    answering, embedding = ThreadsForProducts(), ThreadsForProducts()
    for _ in range(9):
        answering.begin_step(8)
        machine.run(0.1, others=0.0, own=1.0)
        embedding.begin()
        machine.run(0.2, others=0.0, own=1.0)
        embedding.end(0)
    assert measured == []
