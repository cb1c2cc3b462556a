"""Set how many threads compute large matrix products, by how busy other processes keep the cores."""

from __future__ import annotations

import functools
import os
import time
from dataclasses import dataclass

from mlx_server import blas
from mlx_server.engine.blas_threads.other_processes import OtherProcesses
from mlx_server.engine.blas_threads.thread_choice import StepThreadChoice, ThreadChoice
from mlx_server.engine_environment import THREADS_CHOSEN


@dataclass(frozen=True)
class _Step:
    """A step that has begun. `is_first` is True if MLX was computing no earlier step when this one began."""

    began_s: float
    rows: int
    threads: int
    is_first: bool


class _ThisProcess:
    """OpenBLAS's number of threads, which all models in this process share.

    `few` is the number that it has at first, and `threads` the one that is set now. `latest` is the object
    whose slice, batch or step began last.
    """

    def __init__(self) -> None:
        self.few = self.threads = blas.threads()
        self.latest: ThreadsForProducts | None = None

    def use(self, threads: int) -> None:
        if threads != self.threads:
            blas.set_threads(threads)
            self.threads = threads


@functools.cache
def _this_process() -> _ThisProcess:
    return _ThisProcess()


class ThreadsForProducts:
    """Sets how many threads compute matrix products, anew for each slice of a prompt, batch of texts and step
    of answers. Each model in memory has its own object, because models differ in what more threads gain.

    Does nothing on macOS, on a machine with one core, with a BLAS other than OpenBLAS, or if the user has set
    the number of threads.
    """

    def __init__(self) -> None:
        self._process = _this_process()
        few = self._process.few
        most = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
        chosen = os.environ.get(THREADS_CHOSEN) == "1"
        self._works = chosen and 0 < few < most
        self._most, self._most_narrow_rows = most, blas.most_narrow_rows()
        self._slices = ThreadChoice(few, most)
        self._steps = StepThreadChoice(few, most)
        self._others = OtherProcesses()
        self._few = few
        self._slice_began_s: float | None = None
        self._step: _Step | None = None

    def begin(self, tokens: int | None = None) -> None:
        """Choose and set the number of threads for the slice of prompts, or batch of texts, that begins.

        `tokens` is how many prompt tokens the slice computes; None if that is unknown. The number of threads
        usually depends on how busy other processes keep the cores. But if the tokens are so few that our own
        library (`narrow_products.c`) computes the products, all threads are used: in that library, a thread
        whose core is busy hardly holds up the others. Besides, the last measurement of other processes is out
        of date when a short prompt arrives.
        """
        if not self._works:
            return
        self._step, self._process.latest = None, self
        now = self._slice_began_s = time.monotonic()
        if tokens is not None and tokens <= self._most_narrow_rows:
            self._process.use(self._most)
        else:
            self._process.use(self._slices.choose(self._others.busy_cores(now), now))

    def end(self, tokens: int) -> None:
        """End the slice of prompts, or batch of texts, that `begin` began: record its speed, and go back to
        the process's first number of threads.

        `tokens` is how many prompt tokens the slice had; 0 if its duration says nothing about the speed, for
        example because it also did other work.
        """
        if self._slice_began_s is None:
            return
        now = time.monotonic()
        self._slices.record(self._process.threads, tokens, now - self._slice_began_s, now)
        self._slice_began_s = None
        self._process.use(self._few)

    def begin_step(self, rows: int, *, waited: bool = False) -> None:
        """Choose and set the number of threads for the next step, which computes `rows` tokens for all
        running answers together. Also record how long the step before it took, because later choices depend
        on such times.

        The time of a step is measured from one call of this method to the next, because MLX computes the step
        in the background while the caller prepares the next one. This is right only if steps follow each
        other at once. So no time is recorded if the caller has `waited` for the tokens of the step before
        this call, or if that step itself began after such a wait, or was the first one after a call of
        `begin`, `rest` or `end_step`. No time is recorded either if another model has computed in between.

        The caller must call `begin` before a slice of prompts that comes between two steps, and `rest` if no
        step follows for the time being. Between `begin` and `end`, this method does nothing, so a step within
        a slice uses the slice's number of threads.
        """
        if not self._works or self._slice_began_s is not None:
            return
        now, before = time.monotonic(), self._step if self._process.latest is self else None
        self._process.latest = self
        is_first = before is None or waited
        if before is not None and not (before.is_first or is_first):
            self._steps.record(before.rows, before.threads, now - before.began_s, now)
        threads = self._steps.choose(rows, self._others.busy_cores(now), now)
        self._step = _Step(now, rows, threads, is_first)
        self._process.use(threads)

    def end_step(self) -> None:
        """Record how long the step took that the last call of `begin_step` began. Call this method only if
        that call had `waited` set, and the caller has since waited for the step's tokens: then nothing else
        was computed in the meantime.
        """
        step, self._step = self._step, None
        if step is not None and self._process.latest is self:
            now = time.monotonic()
            self._steps.record(step.rows, step.threads, now - step.began_s, now)

    def rest(self) -> None:
        """Go back to the process's first number of threads, because no further step follows for the time
        being.
        """
        self._step = None
        if self._works:
            self._process.use(self._few)
