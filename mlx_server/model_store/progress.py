"""How a fetch tells what it is doing: a fraction that only rises, and a sentence."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

OnProgress = Callable[[str, float, str, int], None]
"""Called with the model's name, the fraction done in 0..1, a sentence, and the download's bytes or 0."""


class Step(Protocol):
    """The same for one model."""

    def __call__(self, fraction: float, sentence: str, total_bytes: int = 0) -> None: ...


def ignore(_name: str, _fraction: float, _sentence: str, _total_bytes: int) -> None:
    """Progress that nobody watches."""


def part(step: Step, start: float, end: float) -> Step:
    """A step whose own 0..1 is `start`..`end` of the whole."""

    def inner(fraction: float, sentence: str, total_bytes: int = 0) -> None:
        step(start + (end - start) * min(max(fraction, 0.0), 1.0), sentence, total_bytes)

    return inner


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
