"""Set OpenBLAS's threads for large products, by what other processes do."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass

from mlx_server import blas
from mlx_server.engine.blas_threads.other_processes import OtherProcesses
from mlx_server.engine.blas_threads.thread_choice import StepThreadChoice, ThreadChoice
from mlx_server.engine_environment import THREADS_CHOSEN


@dataclass(frozen=True)
class _Step:
    began_s: float
    rows: int
    threads: int


class ThreadsForProducts:
    """Chooses the number of OpenBLAS's threads for each slice of a prompt, batch of texts and step of
    answers.

    It does nothing on macOS, with one core, with another BLAS, or if the user has set the number of threads.
    """

    def __init__(self) -> None:
        few, most = blas.threads(), len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
        chosen = os.environ.get(THREADS_CHOSEN) == "1"
        self._works = chosen and 0 < few < most
        self._slices, self._steps = ThreadChoice(few, most), StepThreadChoice(few, most)
        self._others = OtherProcesses()
        self._few = self._set = few
        self._slice_began_s: float | None = None
        self._step: _Step | None = None

    def begin(self) -> None:
        """Set the threads for the slice that begins now."""
        if not self._works:
            return
        self._step = None
        now = self._slice_began_s = time.monotonic()
        self._use(self._slices.choose(self._others.busy_cores(now), now))

    def end(self, tokens: int) -> None:
        """Set the threads back. `tokens` is how many tokens of prompts the slice had; 0 if it did other work
        too, and says nothing about their speed.
        """
        if self._slice_began_s is None:
            return
        now = time.monotonic()
        self._slices.record(self._set, tokens, now - self._slice_began_s, now)
        self._slice_began_s = None
        self._use(self._few)

    def begin_step(self, rows: int) -> None:
        """Set the threads for the step of answers that begins now, and computes `rows` tokens in all.

        MLX computes a step in the background while the next one is prepared. So a step counts as lasting
        until the next one begins; a slice in between, or a rest, must be reported by `begin` or `rest`. A
        step that is part of a slice has the slice's threads.
        """
        if not self._works or self._slice_began_s is not None:
            return
        now = time.monotonic()
        if self._step is not None:
            self._steps.record(self._step.rows, self._step.threads, now - self._step.began_s, now)
        threads = self._few
        if rows >= StepThreadChoice.FEWEST_ROWS:
            threads = self._steps.choose(rows, self._others.busy_cores(now), now)
        self._step = _Step(now, rows, threads)
        self._use(threads)

    def rest(self) -> None:
        """Set the threads back: no further step follows for now."""
        self._step = None
        if self._works:
            self._use(self._few)

    def _use(self, threads: int) -> None:
        if threads != self._set:
            blas.set_threads(threads)
            self._set = threads
