"""How a fetch tells what it is doing: a fraction that only rises, and a sentence."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

OnProgress = Callable[[str, float, str], None]
"""Called with the model's name, the fraction done in 0..1, and a sentence."""

Step = Callable[[float, str], None]
"""The same for one model."""


def ignore(_name: str, _fraction: float, _sentence: str) -> None:
    """Progress that nobody watches."""


def part(step: Step, start: float, end: float) -> Step:
    """A step whose own 0..1 is `start`..`end` of the whole."""
    return lambda fraction, sentence: step(start + (end - start) * min(max(fraction, 0.0), 1.0), sentence)


def folder_bytes(folder: Path) -> int:
    """Bytes in files under `folder`, which may be changing."""
    total = 0
    for path in folder.rglob("*"):
        try:
            total += 0 if path.is_symlink() else path.stat().st_size
        except OSError:
            continue
    return total


@contextmanager
def watching(folder: Path, total_bytes: Callable[[], int], report: Callable[[float], None]) -> Iterator[None]:
    """Report, twice a second, how much of `total_bytes()` lies in `folder`: tools have no common way."""
    finished = threading.Event()

    def watch() -> None:
        while not finished.wait(0.5):
            if total := total_bytes():
                report(min(folder_bytes(folder) / total, 1.0))

    thread = threading.Thread(target=watch, name="fetch-progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        finished.set()
        thread.join()
