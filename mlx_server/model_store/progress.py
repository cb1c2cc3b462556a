"""Report the progress of a fetch: a fraction that only rises, a sentence, and the speed of the download."""

from __future__ import annotations

import os
import stat
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

_INTERVAL_S = 0.5

OnProgress = Callable[[str, float, str, int], None]
"""Called with the model's name, the fraction done (0 to 1), a sentence, and the size of the download in
bytes, or 0 while it is unknown.
"""


class ReportStep(Protocol):
    """Reports the progress of one model's fetch: the fraction done (0 to 1), a sentence, and the size of the
    download in bytes, or 0 while it is unknown.
    """

    def __call__(self, fraction: float, sentence: str, total_bytes: int = 0) -> None: ...


def ignore_progress(_name: str, _fraction: float, _sentence: str, _total_bytes: int) -> None:
    """Do nothing. Callers that want no reports pass this as their `OnProgress`."""


def sub_progress(step: ReportStep, start: float, end: float) -> ReportStep:
    """Return a reporter for one part of the work, whose fractions from 0 to 1 are reported as `start` to
    `end`.
    """

    def report(fraction: float, sentence: str, total_bytes: int = 0) -> None:
        step(start + (end - start) * min(max(fraction, 0.0), 1.0), sentence, total_bytes)

    return report


RATE_WINDOW_S = 10.0
"""How many seconds the speed of a download is averaged over."""


class Rate:
    """Measures the speed of a download from samples of its size. Times are in seconds of a monotonic clock.

    A sample smaller than the one before it means that another download has begun. All earlier samples are
    then dropped.
    """

    def __init__(self) -> None:
        self._samples: deque[tuple[float, int]] = deque()

    def add(self, now_s: float, done_bytes: int) -> None:
        """Record that `done_bytes` are downloaded at the time `now_s`. Fewer bytes than before mean that
        another download has begun.
        """
        if self._samples and done_bytes < self._samples[-1][1]:
            self._samples.clear()
        self._samples.append((now_s, done_bytes))
        while len(self._samples) > 2 and self._samples[1][0] <= now_s - RATE_WINDOW_S:
            self._samples.popleft()

    def bytes_per_s(self) -> float:
        """Return the speed over the last seconds; 0 while it is unknown."""
        if len(self._samples) < 2:
            return 0.0
        (since_s, before), (now_s, done) = self._samples[0], self._samples[-1]
        return (done - before) / (now_s - since_s) if now_s > since_s else 0.0

    def remaining_s(self, total_bytes: int) -> float | None:
        """Return the seconds that the rest of `total_bytes` takes at this speed; None while the speed is
        unknown.
        """
        speed = self.bytes_per_s()
        return max(total_bytes - self._samples[-1][1], 0) / speed if speed > 0 else None


def folder_bytes(folder: Path) -> int:
    """Return the total bytes of all files in `folder` and its subfolders, without links. The folder may
    change meanwhile.
    """
    total = 0
    for parent, _, names in os.walk(folder):  # unlike `Path.rglob`, it skips a folder that has vanished
        for name in names:
            try:
                state = os.lstat(os.path.join(parent, name))
            except OSError:
                continue
            total += 0 if stat.S_ISLNK(state.st_mode) else state.st_size
    return total


@contextmanager
def report_growth(
    done_bytes: Callable[[], int], total_bytes: Callable[[], int], report: Callable[[float], None]
) -> Iterator[None]:
    """Call `report` twice a second while the `with` block runs. Its argument is the fraction `done_bytes()` /
    `total_bytes()`.

    The size of files is the one measure that every download tool provides. `report` is not called while
    `total_bytes()` is 0.
    """
    finished = threading.Event()

    def watch() -> None:
        while not finished.wait(_INTERVAL_S):
            if total := total_bytes():
                report(min(done_bytes() / total, 1.0))

    thread = threading.Thread(target=watch, name="fetch-progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        finished.set()
        thread.join()
