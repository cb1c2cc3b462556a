"""Show downloads: bars on a terminal, lines for a pipe.

An update is a JSON object that the model store's program prints: it has `model`, `fraction`, `sentence`,
`bytes` and, while a download runs, `bytes_per_s` and `remaining_s`.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from host_agent.cli.screen.styled import printable, unguarded
from host_agent.cli.screen.units import format_download

LINE_FRACTION = 0.1
"""For a pipe, a line is printed whenever this fraction of a download has been added."""

Update = Mapping[str, Any]


class DownloadView(Protocol):
    """Shows the progress of downloads, each under the name of its model."""

    def show(self, update: Update) -> None: ...

    def end(self, model: str) -> None:
        """Stop showing a model whose download has failed."""


@contextlib.contextmanager
def download_view() -> Iterator[DownloadView]:
    """Yield a view that suits stdout: Bars on a terminal, else Lines."""
    if not sys.stdout.isatty():
        yield Lines()
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[figures]}"),
    )
    with Progress(*columns, console=Console(file=unguarded(sys.stdout))) as progress:
        yield Bars(progress)


class Lines:
    """Prints a line for each new sentence about a model, and for each tenth of a download."""

    def __init__(self) -> None:
        self._printed: dict[str, tuple[str, float]] = {}

    def show(self, update: Update) -> None:
        model, sentence, fraction = update["model"], update["sentence"], update["fraction"]
        last_sentence, last_fraction = self._printed.get(model, ("", -1.0))
        if sentence == last_sentence and fraction < last_fraction + LINE_FRACTION:
            return
        self._printed[model] = (sentence, fraction)
        shown = f"{fraction:4.0%}  {format_download(update)}" if is_download(update) else sentence
        print(f"{model}: {shown}", flush=True)

    def end(self, model: str) -> None:
        self._printed.pop(model, None)


class Bars:
    """Draws a bar for each model with rich, and prints sentences above the bars."""

    def __init__(self, progress: Any) -> None:
        self._progress = progress
        self._tasks: dict[str, Any] = {}
        self._sentences: dict[str, str] = {}

    def show(self, update: Update) -> None:
        model, sentence = update["model"], update["sentence"]
        if model not in self._tasks:
            self._tasks[model] = self._progress.add_task(printable(model), total=None, figures="")
        if not is_download(update) and self._sentences.get(model) != sentence:
            self._sentences[model] = sentence
            self._progress.console.print(printable(f"{model}: {sentence}"), highlight=False, markup=False)
        known = {"total": 1.0, "completed": update["fraction"]} if update["bytes"] else {}
        if update["fraction"] >= 1.0:
            known = {"total": 1.0, "completed": 1.0}
        self._progress.update(self._tasks[model], figures=format_download(update), **known)

    def end(self, model: str) -> None:
        if model in self._tasks:
            self._progress.remove_task(self._tasks.pop(model))


def is_download(update: Update) -> bool:
    """Return whether the update reports an unfinished download whose size in bytes is known."""
    return bool(update["bytes"]) and update["fraction"] < 1.0
