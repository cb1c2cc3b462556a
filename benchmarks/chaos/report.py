"""Count the outcomes of the load, and format them as one table. Pure."""

from __future__ import annotations

import bisect
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from benchmarks.chaos.answers import Answer
from benchmarks.chaos.asks import ChaosRequest
from benchmarks.chaos.killer import Death
from benchmarks.chaos.verdict import TextVerdict, judge


@dataclass
class Report:
    """The outcome of a run. `pauses_s`: by kill method, the pause of each stream that had begun."""

    sent: int = 0
    finished: int = 0
    verdicts: Counter[TextVerdict] = field(default_factory=Counter)
    pauses_s: dict[str, list[float]] = field(default_factory=dict)
    noticed_ms: list[float] = field(default_factory=list)
    kills: Counter[str] = field(default_factory=Counter)
    unreplaced: int = 0
    faults: list[str] = field(default_factory=list)

    @property
    def equal_share(self) -> float:
        return self.verdicts[TextVerdict.EQUAL] / self.sent if self.sent else 0.0

    def fails(self, least_equal: float) -> list[str]:
        """Return the reasons why this run failed; none if it succeeded."""
        lost, doubled = self.verdicts[TextVerdict.LOST], self.verdicts[TextVerdict.DOUBLED]
        reasons = [f"{lost} lost"] if lost else []
        reasons += [f"{doubled} doubled"] if doubled else []
        reasons += [f"{self.unreplaced} kills without a new engine"] if self.unreplaced else []
        if self.equal_share < least_equal:
            reasons.append(f"{self.equal_share:.1%} equal, less than {least_equal:.0%}")
        return reasons


def report(
    wanted: dict[int, Answer],
    got: Sequence[tuple[ChaosRequest, Answer]],
    deaths: Sequence[Death],
    unreplaced: int,
) -> Report:
    outcome = Report(sent=len(got), unreplaced=unreplaced, kills=Counter(death.method for death in deaths))
    for ask, answer in got:
        whole = answer.finished and not answer.fault
        verdict = judge(answer.text, whole, wanted[ask.number].text)
        outcome.finished += whole
        outcome.verdicts[verdict] += 1
        if verdict is not TextVerdict.EQUAL:
            why = answer.fault or f"got {answer.text!r} where {wanted[ask.number].text!r} was due"
            outcome.faults.append(f"{verdict}: {ask.number} {ask.kind}: {why}")
        for death in deaths:
            outcome.pauses_s.setdefault(death.method, []).extend(pauses(answer.pieces_at, death))
    return outcome


def pauses(pieces_at: Sequence[float], death: Death) -> Iterable[float]:
    """Yield the longest silence, in seconds, of a stream that began before the kill and continued after it.

    An engine that shuts down gracefully still sends some tokens; hence the longest silence, not the first.
    """
    first = max(bisect.bisect(pieces_at, death.at), 1)
    if bisect.bisect(pieces_at, death.at) and pieces_at[-1] > death.at:
        gaps = zip(pieces_at[first - 1 :], pieces_at[first:], strict=False)
        yield max(end - begin for begin, end in gaps if begin <= death.replaced_at)


def percentile(values: Sequence[float], share: float) -> float:
    """Return the percentile by nearest rank, or NaN if there are no values."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("nan")


COLUMNS = (
    "sent", "finished", "lost", "doubled", "equal",
    "pause p50", "pause p99", "kills survived", "exit noticed",
)  # fmt: skip


def table(outcome: Report) -> str:
    """Return one line of figures under their names, and the pauses by kill method."""
    every = [pause for pauses in outcome.pauses_s.values() for pause in pauses]
    kills = outcome.kills.total()
    cells = (
        f"{outcome.sent}",
        f"{outcome.finished}",
        f"{outcome.verdicts[TextVerdict.LOST]}",
        f"{outcome.verdicts[TextVerdict.DOUBLED]}",
        f"{outcome.verdicts[TextVerdict.EQUAL]} ({outcome.equal_share:.1%})",
        f"{statistics.median(every):.2f} s" if every else "-",
        f"{percentile(every, 0.99):.2f} s" if every else "-",
        f"{kills - outcome.unreplaced} of {kills}",
        f"{statistics.median(outcome.noticed_ms):.1f} ms" if outcome.noticed_ms else "-",
    )
    widths = [max(len(name), len(cell)) for name, cell in zip(COLUMNS, cells, strict=True)]
    lines = [
        "  ".join(text.rjust(w) for text, w in zip(row, widths, strict=True)) for row in (COLUMNS, cells)
    ]
    return "\n".join([*lines, "", "pauses of streams, by kill method:", *_by_method(outcome)])


def _by_method(outcome: Report) -> Iterable[str]:
    for method, count in sorted(outcome.kills.items()):
        pauses = outcome.pauses_s.get(method, [])
        figures = f"p50 {statistics.median(pauses):.2f} s, max {max(pauses):.2f} s" if pauses else "no stream"
        yield f"  {method:<5} {count:>3} kills, {len(pauses):>3} streams: {figures}"
