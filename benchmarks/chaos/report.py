"""Counts what became of the load, and words it as one table. Pure."""

from __future__ import annotations

import bisect
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from benchmarks.chaos.answers import Answer
from benchmarks.chaos.asks import Ask
from benchmarks.chaos.killer import Death
from benchmarks.chaos.verdict import Verdict, judge


@dataclass
class Report:
    """`pauses_s` by way of death: the silence of each stream that had begun."""

    sent: int = 0
    finished: int = 0
    verdicts: Counter[Verdict] = field(default_factory=Counter)
    pauses_s: dict[str, list[float]] = field(default_factory=dict)
    noticed_ms: list[float] = field(default_factory=list)
    kills: Counter[str] = field(default_factory=Counter)
    unreplaced: int = 0
    faults: list[str] = field(default_factory=list)

    @property
    def equal_share(self) -> float:
        return self.verdicts[Verdict.EQUAL] / self.sent if self.sent else 0.0

    def fails(self, least_equal: float) -> list[str]:
        """Why this run is no success; empty for one that is."""
        lost, doubled = self.verdicts[Verdict.LOST], self.verdicts[Verdict.DOUBLED]
        reasons = [f"{lost} lost"] if lost else []
        reasons += [f"{doubled} doubled"] if doubled else []
        reasons += [f"{self.unreplaced} kills without a new engine"] if self.unreplaced else []
        if self.equal_share < least_equal:
            reasons.append(f"{self.equal_share:.1%} equal, less than {least_equal:.0%}")
        return reasons


def report(
    wanted: dict[int, Answer], got: Sequence[tuple[Ask, Answer]], deaths: Sequence[Death], unreplaced: int
) -> Report:
    told = Report(sent=len(got), unreplaced=unreplaced, kills=Counter(death.way for death in deaths))
    for ask, answer in got:
        whole = answer.finished and not answer.fault
        verdict = judge(answer.text, whole, wanted[ask.number].text)
        told.finished += whole
        told.verdicts[verdict] += 1
        if verdict is not Verdict.EQUAL:
            why = answer.fault or f"got {answer.text!r} where {wanted[ask.number].text!r} was due"
            told.faults.append(f"{verdict}: {ask.number} {ask.kind}: {why}")
        for death in deaths:
            told.pauses_s.setdefault(death.way, []).extend(pauses(answer.pieces_at, death))
    return told


def pauses(pieces_at: Sequence[float], death: Death) -> Iterable[float]:
    """The longest silence of a stream that had begun when the engine was told to die, and went on after it.

    An engine that ends in order still speaks for a moment; hence the longest, not the first.
    """
    first = max(bisect.bisect(pieces_at, death.at), 1)
    if bisect.bisect(pieces_at, death.at) and pieces_at[-1] > death.at:
        gaps = zip(pieces_at[first - 1 :], pieces_at[first:], strict=False)
        yield max(end - begin for begin, end in gaps if begin <= death.replaced_at)


def percentile(values: Sequence[float], share: float) -> float:
    """By the nearest rank; NaN where there are none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("nan")


COLUMNS = (
    "sent", "finished", "lost", "doubled", "equal",
    "pause p50", "pause p99", "kills survived", "exit noticed",
)  # fmt: skip


def table(told: Report) -> str:
    """One line of figures under their names, and the pauses by way of death."""
    every = [pause for pauses in told.pauses_s.values() for pause in pauses]
    kills = told.kills.total()
    cells = (
        f"{told.sent}",
        f"{told.finished}",
        f"{told.verdicts[Verdict.LOST]}",
        f"{told.verdicts[Verdict.DOUBLED]}",
        f"{told.verdicts[Verdict.EQUAL]} ({told.equal_share:.1%})",
        f"{statistics.median(every):.2f} s" if every else "-",
        f"{percentile(every, 0.99):.2f} s" if every else "-",
        f"{kills - told.unreplaced} of {kills}",
        f"{statistics.median(told.noticed_ms):.1f} ms" if told.noticed_ms else "-",
    )
    widths = [max(len(name), len(cell)) for name, cell in zip(COLUMNS, cells, strict=True)]
    lines = [
        "  ".join(text.rjust(w) for text, w in zip(row, widths, strict=True)) for row in (COLUMNS, cells)
    ]
    return "\n".join([*lines, "", "pauses of streams, by way of death:", *_by_way(told)])


def _by_way(told: Report) -> Iterable[str]:
    for way, count in sorted(told.kills.items()):
        pauses = told.pauses_s.get(way, [])
        figures = f"p50 {statistics.median(pauses):.2f} s, max {max(pauses):.2f} s" if pauses else "no stream"
        yield f"  {way:<5} {count:>3} kills, {len(pauses):>3} streams: {figures}"
