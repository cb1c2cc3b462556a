"""Define scenarios, in which Vestal and its peers are measured together, taking turns.

A module with a scenario defines it as `SCENARIO`, and `benchmarks/runs/registry.py` lists the module. Its
command is `python -m benchmarks.FOLDER.MODULE [ROUNDS]`, which calls `run_alone`.
"""

from __future__ import annotations

import signal
import statistics
import sys
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

from benchmarks.figures import Figure

Log = Callable[[Figure], None]
ROW = "{:<44} {:<22} {:>10} {:>10} {:>10}  {}"


@dataclass
class Subjects:
    """The subjects of a run. `only` has the names of the subjects to be measured (empty: all). `skipped` maps
    the names of the subjects that were left out to the reasons. `have` has the figures of the scenario that
    are already stored.
    """

    only: Collection[str] = ()
    skipped: dict[str, str] = field(default_factory=dict)
    have: Sequence[Figure] = ()
    """The stored figures of the scenario in this run, for a scenario that `resumes_itself`."""

    def wants(self, name: str) -> bool:
        """Return whether the program or variant `name` is to be measured in this run."""
        return not self.only or name in self.only

    def skip(self, name: str, why: str) -> None:
        """Leave out a subject that cannot run on this machine, such as a peer that is not installed; `why` is
        the reason.
        """
        if name not in self.skipped:
            self.skipped[name] = why
            progress(f"{name} is left out: {why}")


@dataclass(frozen=True)
class Scenario:
    """A measurement of several subjects: of Vestal, and of the peers with which Vestal is compared. The
    subjects take turns in each round. `about` says in a few words what is measured. A quick run gives the
    scenario `quick_s` seconds and `quick_rounds` rounds, a full run `full_s` and `full_rounds`. With
    `quick_s` 0 it is not part of a quick run.

    `run` is called with a function that logs a figure, the subjects to measure, and the number of rounds. It
    logs each figure as soon as it has one, with rounds that count from 1, and reports progress on stderr. If
    a KeyboardInterrupt interrupts it, it stops what it started.

    If a stored run of benchmarks is continued, `run` is called with only the number of rounds that are not
    complete yet. It still counts from 1; the function that logs a figure adds the number of complete rounds.
    A scenario that `resumes_itself` is instead called with all rounds, and leaves out those whose figures are
    in `subjects.have`.
    """

    name: str
    about: str
    quick_s: float
    full_s: float
    run: Callable[[Log, Subjects, int], None]
    quick_rounds: int = 1
    full_rounds: int = 5
    resumes_itself: bool = False


def progress(line: str) -> None:
    """Print a line of progress to stderr, because stdout is for results."""
    print(line, file=sys.stderr, flush=True)


def run_alone(scenario: Scenario, arguments: list[str]) -> None:
    """Run one scenario and print its figures, without storing them. `arguments` are those of the command
    line, and may be empty: the number of rounds (by default that of a full run), then the names of the
    subjects to measure, such as `vestal` (by default all). Raises SystemExit if the number of rounds is not a
    whole number of at least 1.
    """
    if arguments and not (arguments[0].isdecimal() and int(arguments[0])):
        raise SystemExit(f"ROUNDS must be a whole number of at least 1, not {arguments[0]!r}.")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that all servers are stopped
    figures: list[Figure] = []
    subjects = Subjects(only=arguments[1:])
    try:
        scenario.run(figures.append, subjects, int(arguments[0]) if arguments else scenario.full_rounds)
    finally:
        print(table(figures), flush=True)


def table(figures: list[Figure]) -> str:
    """Return the figures as a table, in lines of text. Figures with the same row (what was measured, such as
    `serving/tokens_per_s/4`) and the same subject (the measured program or variant, such as `vestal`) share
    one line, which has their median, smallest and largest value, their unit, and their first failure if there
    is one. The lines have the order in which their rows first appear in `figures`.
    """
    found: dict[tuple[str, str], list[Figure]] = {}
    for figure in figures:
        found.setdefault((figure.row, figure.subject), []).append(figure)
    lines = [ROW.format("", "", "median", "least", "most", "").rstrip()]
    for (row, subject), each in sorted(found.items(), key=lambda item: _order(figures, item[0][0])):
        values = [figure.value for figure in each if figure.value is not None]
        failed = next((figure.failed for figure in each if figure.failed is not None), "")
        cells = (
            [f"{value:.4g}" for value in (statistics.median(values), min(values), max(values))]
            if values
            else "---"
        )
        unit = next((figure.unit for figure in each if figure.unit), "")
        lines.append(ROW.format(row, subject, *cells, f"{unit} {failed}".strip()).rstrip())
    return "\n".join(lines)


def _order(figures: list[Figure], row: str) -> int:
    return next(number for number, figure in enumerate(figures) if figure.row == row)
