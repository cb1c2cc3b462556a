"""Cached prompts are read slice by slice on a worker, within a share of the free memory."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any

from mlx_server.engine.scheduling.prompt_preloading import MEMORY_SHARE, PromptPreloading


class FakeStore:
    def __init__(self, slices: int) -> None:
        self.slices, self.available = slices, list[int]()

    @property
    def has_preloads(self) -> bool:
        return self.slices > 0

    def preload_job(self, available_bytes: int) -> Any:
        self.available.append(available_bytes)
        self.slices -= 1
        return None if self.slices < 0 else lambda: None


class FakeWorker:
    def __init__(self) -> None:
        self.jobs = list[Future[None]]()

    def submit(self, job: Any) -> Future[None]:
        self.jobs.append(Future())
        return self.jobs[-1]


def test_next_slice_of_cached_prompts_is_preloaded_only_after_the_previous_one_has_ended():
    store, worker = FakeStore(2), FakeWorker()
    free = iter([1000, 400])
    preloading: Any = PromptPreloading(store, worker, lambda: next(free))  # type: ignore[arg-type]
    preloading.advance()
    assert (len(worker.jobs), store.available) == (1, [])  # the pause
    worker.jobs[0].set_result(None)
    preloading.advance()
    preloading.advance()
    assert len(worker.jobs) == 2
    worker.jobs[1].set_exception(MemoryError())
    preloading.advance()
    assert len(worker.jobs) == 3
    assert store.available == [1000 * MEMORY_SHARE, 400 * MEMORY_SHARE]
    worker.jobs[2].set_result(None)
    preloading.advance()  # the memory is not read when nothing is left
    assert len(worker.jobs) == 3
    store.slices = 1  # of the next model
    preloading.advance()
    assert (len(worker.jobs), len(store.available)) == (4, 2)
