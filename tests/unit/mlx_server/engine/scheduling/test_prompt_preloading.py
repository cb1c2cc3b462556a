"""Cached prompts are read slice by slice on a worker, within a share of the free memory."""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future
from typing import Any

from mlx_server.engine.scheduling import prompt_preloading
from mlx_server.engine.scheduling.prompt_preloading import MEMORY_SHARE, PromptPreloading


class FakeStore:
    """A store with `slices` jobs, of which the first `urgent` belong to the prompt that was used last."""

    def __init__(self, slices: int, urgent: int = 0) -> None:
        self.slices, self.urgent, self.available = slices, urgent, list[int]()

    @property
    def has_preloads(self) -> bool:
        return self.slices > 0

    @property
    def has_urgent_preloads(self) -> bool:
        return self.urgent > 0

    def preload_job(self, available_bytes: int) -> Any:
        self.available.append(available_bytes)
        self.slices -= 1
        self.urgent -= 1
        return None if self.slices < 0 else lambda: None


class FakeWorker:
    """A worker whose jobs never run by themselves. A test runs one of `submitted`, or sets its result."""

    def __init__(self) -> None:
        self.submitted = list[Any]()
        self.jobs = list[Future[Any]]()

    def submit(self, job: Any) -> Future[Any]:
        self.submitted.append(job)
        self.jobs.append(Future())
        return self.jobs[-1]


def preloading_of(store: FakeStore, worker: FakeWorker) -> PromptPreloading:
    return PromptPreloading(store, worker, lambda: 1000)  # type: ignore[arg-type]


def started(job: Any) -> threading.Thread:
    """Return a thread that runs `job`."""
    thread = threading.Thread(target=job, daemon=True)
    thread.start()
    return thread


def test_next_slice_of_cached_prompts_is_preloaded_only_after_the_previous_one_has_ended():
    store, worker = FakeStore(2), FakeWorker()
    free = iter([1000, 400])
    preloading: Any = PromptPreloading(store, worker, lambda: next(free))  # type: ignore[arg-type]
    preloading.advance(False)
    assert (len(worker.jobs), store.available) == (1, [])  # the pause
    worker.jobs[0].set_result(None)
    preloading.advance(False)
    preloading.advance(False)
    assert len(worker.jobs) == 2
    worker.jobs[1].set_exception(MemoryError())
    preloading.advance(False)
    assert len(worker.jobs) == 3
    assert store.available == [1000 * MEMORY_SHARE, 400 * MEMORY_SHARE]
    worker.jobs[2].set_result(None)
    preloading.advance(False)  # the memory is not read when nothing is left
    assert len(worker.jobs) == 3
    store.slices = 1  # of the next model
    preloading.advance(False)
    assert (len(worker.jobs), len(store.available)) == (4, 2)


def test_pause_before_preloading_cached_prompts_takes_its_whole_time_if_no_request_runs(monkeypatch):
    monkeypatch.setattr(prompt_preloading, "START_AFTER_S", 0.05)
    worker = FakeWorker()
    preloading_of(FakeStore(1), worker).advance(False)
    began_s = time.monotonic()
    worker.submitted[0]()
    assert time.monotonic() - began_s > 0.04


def test_pause_before_preloading_cached_prompts_ends_as_soon_as_a_request_runs(monkeypatch):
    monkeypatch.setattr(prompt_preloading, "START_AFTER_S", 600.0)
    store, worker = FakeStore(1), FakeWorker()
    preloading = preloading_of(store, worker)
    for at in range(2):  # the end of the first pause does not end the second one
        preloading.advance(False)
        assert len(worker.jobs) == at + 1
        pause = started(worker.submitted[at])
        preloading.advance(False)  # nothing has changed
        pause.join(0.05)
        assert pause.is_alive()
        preloading.advance(True)
        pause.join(30.0)
        assert not pause.is_alive()
        worker.jobs[at].set_result(None)
        preloading.advance(True)
    assert store.available == []


def test_prompt_used_last_is_preloaded_while_requests_run_and_others_only_after_they_have_ended():
    store, worker = FakeStore(3, urgent=2), FakeWorker()
    preloading = preloading_of(store, worker)
    preloading.advance(True)
    assert (len(worker.jobs), len(store.available)) == (1, 1)
    worker.jobs[0].set_result(None)
    preloading.advance(False)  # without a pause, although no request runs any more
    assert (len(worker.jobs), len(store.available)) == (2, 2)
    worker.jobs[1].set_result(None)
    for _ in range(3):
        preloading.advance(True)
    assert (len(worker.jobs), len(store.available)) == (2, 2)
    preloading.advance(False)
    assert (len(worker.jobs), len(store.available)) == (3, 2)  # a pause
    worker.jobs[2].set_result(None)
    preloading.advance(False)
    assert (len(worker.jobs), len(store.available)) == (4, 3)


def test_last_used_prompt_is_preloaded_only_after_the_idle_pause_if_no_request_has_run_yet():
    store, worker = FakeStore(2, urgent=2), FakeWorker()
    preloading = preloading_of(store, worker)
    preloading.advance(False)
    assert (len(worker.jobs), store.available) == (1, [])
    worker.jobs[0].set_result(None)
    preloading.advance(False)
    assert (len(worker.jobs), len(store.available)) == (2, 1)


def test_pause_that_a_short_request_has_interrupted_does_not_count_for_other_cached_prompts():
    store, worker = FakeStore(1), FakeWorker()
    preloading = preloading_of(store, worker)
    preloading.advance(False)
    preloading.advance(True)
    worker.jobs[0].set_result(None)
    preloading.advance(False)
    assert (len(worker.jobs), store.available) == (2, [])  # another pause


def test_preload_job_that_was_cancelled_is_ignored():
    store, worker = FakeStore(2, urgent=2), FakeWorker()
    preloading = preloading_of(store, worker)
    preloading.advance(True)
    assert worker.jobs[0].cancel()
    worker.jobs[0].set_running_or_notify_cancel()
    preloading.advance(True)
    assert (len(worker.jobs), len(store.available)) == (2, 2)


def test_cached_prompts_that_are_not_urgent_are_not_preloaded_while_requests_run():
    store, worker = FakeStore(1), FakeWorker()
    preloading = preloading_of(store, worker)
    for _ in range(3):
        preloading.advance(True)
    assert (worker.jobs, store.available) == ([], [])


def test_preloading_that_a_request_interrupted_goes_on_only_after_another_idle_pause():
    store, worker = FakeStore(2), FakeWorker()
    preloading = preloading_of(store, worker)
    preloading.advance(False)
    worker.jobs[0].set_result(None)
    preloading.advance(False)
    worker.jobs[1].set_result(None)
    preloading.advance(True)
    preloading.advance(False)
    assert (len(worker.jobs), len(store.available)) == (3, 1)
    worker.jobs[2].set_result(None)
    preloading.advance(False)
    assert (len(worker.jobs), len(store.available)) == (4, 2)


def test_function_returned_by_a_preload_job_is_called_once_by_the_next_advance_on_its_thread():
    store, worker, calls = FakeStore(1), FakeWorker(), list[int]()
    preloading = preloading_of(store, worker)
    preloading.advance(False)
    worker.jobs[0].set_result(None)
    preloading.advance(False)
    assert not store.has_preloads  # the function is called even if nothing is left to read
    other = started(lambda: worker.jobs[1].set_result(lambda: calls.append(threading.get_ident())))
    other.join()
    assert calls == []
    preloading.advance(True)
    assert calls == [threading.get_ident()]
    store.slices = 1
    preloading.advance(False)
    worker.jobs[2].set_result(None)
    preloading.advance(False)
    assert len(worker.jobs) == 4
    assert calls == [threading.get_ident()]


def test_preload_job_that_raised_is_ignored_and_the_next_part_is_read():
    store, worker = FakeStore(3, urgent=3), FakeWorker()
    preloading = preloading_of(store, worker)
    preloading.advance(True)
    worker.jobs[0].set_exception(OSError("no such file"))
    preloading.advance(True)
    assert (len(worker.jobs), len(store.available)) == (2, 2)
