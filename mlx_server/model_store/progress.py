"""Reports on the progress of a fetch: a fraction that only rises, and a sentence."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

_INTERVAL_S = 0.5

OnProgress = Callable[[str, float, str, int], None]
"""Called with the model's name, the fraction done in 0..1, a sentence, and the size of the download in bytes,
or 0 while it is unknown."""


class ReportStep(Protocol):
    """Reports the progress of one model: like `OnProgress`, without the name."""

    def __call__(self, fraction: float, sentence: str, total_bytes: int = 0) -> None: ...


def ignore_progress(_name: str, _fraction: float, _sentence: str, _total_bytes: int) -> None:
    """Report to nobody: an `OnProgress` that does nothing."""


def sub_progress(step: ReportStep, start: float, end: float) -> ReportStep:
    """Return a reporter for one part of the work: its fraction 0..1 is reported as `start`..`end`."""

    def report(fraction: float, sentence: str, total_bytes: int = 0) -> None:
        step(start + (end - start) * min(max(fraction, 0.0), 1.0), sentence, total_bytes)

    return report


def folder_bytes(folder: Path) -> int:
    """Return the size of all files in `folder` and its subfolders, in bytes. The folder may be changing."""
    total = 0
    for path in folder.rglob("*"):
        try:
            total += 0 if path.is_symlink() else path.stat().st_size
        except OSError:
            continue
    return total


@contextmanager
def report_growth(
    folder: Path, total_bytes: Callable[[], int], report: Callable[[float], None]
) -> Iterator[None]:
    """Report, while the block runs, which fraction of `total_bytes()` is in `folder`, twice a second.

    The size of the folder is the one figure that every download tool provides. Nothing is reported while
    `total_bytes()` is 0.
    """
    finished = threading.Event()

    def watch() -> None:
        while not finished.wait(_INTERVAL_S):
            if total := total_bytes():
                report(min(folder_bytes(folder) / total, 1.0))

    thread = threading.Thread(target=watch, name="fetch-progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        finished.set()
        thread.join()
