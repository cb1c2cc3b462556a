"""Summarize stored figures by median and spread, and compare Vestal with the best peer of a row. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from benchmarks.figures import VESTAL, Better, Figure

EQUAL = 0.005
"""A ratio that differs from 1 by less than this is neither won nor lost; it is shown as 1.00."""


@dataclass
class Cell:
    """The figures of one table cell: the measurements of one row for one subject (Vestal, a variant of it, or
    a peer). `values` maps the number of each round to the value in that round. `failures` has a sentence for
    each measurement that failed.
    """

    values: dict[int, float] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    @property
    def median(self) -> float | None:
        return statistics.median(self.values.values()) if self.values else None

    @property
    def spread(self) -> tuple[float, float] | None:
        """Return the smallest and the largest value; None if there are no values."""
        return (min(self.values.values()), max(self.values.values())) if self.values else None


@dataclass
class Row:
    """One row of a table: the name of what was measured, its unit, and whether higher or lower values are
    better. `cells` maps each subject (Vestal, a variant of it, or a peer) to its cell. The subjects are in
    the order in which they first appear in the figures.
    """

    name: str
    unit: str = ""
    better: Better = "higher"
    cells: dict[str, Cell] = field(default_factory=dict)


@dataclass(frozen=True)
class Comparison:
    """Vestal compared with the best peer of a row. `ratio` is above 1 if Vestal is better, and None if a
    value is 0 or missing.

    If neither `won` nor `lost` is true, the two are equal, or neither has a value.
    """

    peer: str
    ratio: float | None
    won: bool
    lost: bool


def rows_of(figures: Iterable[Figure]) -> list[Row]:
    """Return the figures as table rows, in order of appearance. Figures with the same row name form one row,
    with a cell for each subject (Vestal, a variant of it, or a peer). A cell holds the subject's value of
    each round, and its failures. Of several values for the same row, subject and round, the last one counts.
    """
    rows: dict[str, Row] = {}
    for figure in figures:
        row = rows.setdefault(figure.row, Row(figure.row))
        cell = row.cells.setdefault(figure.subject, Cell())
        if figure.value is None:
            cell.failures.append(figure.failed or "")
        else:
            row.unit, row.better = figure.unit, figure.better
            cell.values[figure.round] = figure.value
    return list(rows.values())


def is_ours(subject: str) -> bool:
    """Return whether the subject is Vestal, with its default settings or with others."""
    return subject == VESTAL or subject.startswith((f"{VESTAL} ", f"{VESTAL}+"))


def subjects_of(rows: Sequence[Row]) -> list[str]:
    """Return the subjects of the rows: Vestal first, then its variants, then the peers."""
    found = dict.fromkeys(subject for row in rows for subject in row.cells)
    return sorted(found, key=lambda subject: (subject != VESTAL, not is_ours(subject)))


def compare(row: Row) -> Comparison | None:
    """Compare Vestal with the best peer. Return None if the row has no cell for Vestal or none for a peer."""
    ours = row.cells.get(VESTAL)
    peers = {name: cell for name, cell in row.cells.items() if not is_ours(name)}
    if ours is None or not peers:
        return None
    medians = {name: cell.median for name, cell in peers.items() if cell.median is not None}
    if not medians:
        return Comparison(next(iter(peers)), None, won=ours.median is not None, lost=False)
    choose = max if row.better == "higher" else min
    best = choose(medians, key=lambda name: medians[name])
    if ours.median is None:
        return Comparison(best, None, won=False, lost=True)
    ratio = _ratio(ours, peers[best], row.better)
    if ratio is None:
        difference = ours.median - medians[best]
        gain = difference if row.better == "higher" else -difference
        return Comparison(best, None, won=gain > 0, lost=gain < 0)
    return Comparison(best, ratio, won=ratio >= 1 + EQUAL, lost=ratio <= 1 - EQUAL)


def _ratio(ours: Cell, theirs: Cell, better: Better) -> float | None:
    """Return how many times better `ours` is than `theirs`, so that a ratio above 1 is an advantage of ours.
    `better` says whether higher or lower values are better.

    The ratio is the median of the ratios in the rounds that both have, or the ratio of their medians if they
    have no round in common. It is None if one of them has no value, or if a value is not positive.
    """
    pairs = [(ours.values[each], theirs.values[each]) for each in ours.values if each in theirs.values]
    if not pairs and ours.median is not None and theirs.median is not None:
        pairs = [(ours.median, theirs.median)]
    if not pairs or any(value <= 0 for pair in pairs for value in pair):
        return None
    return statistics.median(a / b if better == "higher" else b / a for a, b in pairs)
