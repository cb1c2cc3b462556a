"""Convert the outcome of one try, in which a fault was injected, to figures, and the figures of all tries to
a Markdown table with a row for each fault. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence

from benchmarks.faults.outcomes import NOBODY, Outcome
from benchmarks.figures import VESTAL, Figure, percentile

NOTICED, SERVED, LOST, CUT_OFFS, ACTED = "noticed_s", "served_again_s", "lost", "cut_offs", "acted"
ACTED_BY = "acted_by_"
"""The beginning of the name of an actor's row. Each figure in that row is one try in which this actor
acted.
"""
UNITS = {NOTICED: "s", SERVED: "s", LOST: "requests", CUT_OFFS: "connections", ACTED: "acts of a person"}
UNNOTICED = "No event of the journal showed that the fault was noticed."
NOT_SERVED = "The service did not serve again while it was watched."
HEAD = (
    "| fault | tries | noticed after p50 | p99 | served again after p50 | p99 | requests lost | cut off | "
    "acted |"
)
LEGEND = """
Noticed: the first event of the journal about the fault (of the agent: the watchdog's log). Served again:
the first answer to a request that was sent after the fault, or the length of a later outage if that is
longer; a fault that interrupts nothing takes about the time of one answer. Lost: requests without a whole
answer, although their clients come back with their key; Ollama keeps no answers. Cut off: connections that
broke, and whose clients came back. The disk is full, and the gateway can open nothing, for 6 s. A sleep
counts from the wake, want of memory from the kernel's kill, an upgrade from the order. After two tries of
each fault on the host a new stack is started, because Ollama is restarted at most five times an hour.
"""
RULE = "|---|--:|--:|--:|--:|--:|--:|--:|---|"


def row(fault: str, what: str) -> str:
    """Return the name of the row for the measurement `what` of a fault: `faults/FAULT/WHAT`."""
    return f"faults/{fault}/{what}"


def figures(fault: str, number: int, got: Outcome) -> Iterator[Figure]:
    """Yield the figures of one try, with the try's number as the round. The time until the recovery comes
    last.
    """
    values: dict[str, float] = {LOST: got.lost, CUT_OFFS: got.cut_offs, ACTED: float(got.by_person)}
    for what, value in values.items():
        yield Figure(row(fault, what), VESTAL, value, UNITS[what], "lower", number)
    for actor in got.actors:
        slug = actor.replace(" ", "_")
        yield Figure(row(fault, f"{ACTED_BY}{slug}"), VESTAL, 1.0, "tries", "lower", number)
    seen = {NOTICED: (got.noticed_s, UNNOTICED), SERVED: (got.served_again_s, NOT_SERVED)}
    for what, (seconds, why) in seen.items():
        if seconds is None:
            yield failure(fault, what, number, why)
        else:
            yield Figure(row(fault, what), VESTAL, round(seconds, 4), UNITS[what], "lower", number)


def failure(fault: str, what: str, number: int, why: str) -> Figure:
    """Return a Figure without a value for the measurement `what` of try `number`, which could not be made
    because of `why`.
    """
    return Figure(row(fault, what), VESTAL, None, UNITS[what], "lower", number, failed=why)


def markdown(found: Iterable[Figure]) -> str:
    """Return a table in Markdown with a row for each fault, in the order in which the faults first appear in
    `found`. Figures that do not belong to faults are ignored.

    If a fault was not noticed in a try, or the service did not recover, the time until then counts as
    infinite, so that a failure cannot make the row look better. The row of a fault that was not measured says
    why.
    """
    rows: dict[str, list[Figure]] = {}
    for figure in found:
        if figure.row.startswith("faults/") and figure.subject == VESTAL:
            rows.setdefault(figure.row.split("/")[1], []).append(figure)
    lines = [HEAD, RULE, *(_line(fault, of_fault) for fault, of_fault in rows.items())]
    return "\n".join(lines) + "\n" + LEGEND


def _line(fault: str, of_fault: Sequence[Figure]) -> str:
    name = fault.replace("_", " ")
    lost = [figure.value for figure in _of(of_fault, fault, LOST) if figure.value is not None]
    if not lost:
        why = next((figure.failed for figure in of_fault if figure.failed), "")
        return f"| {name} | 0 | not measured here: {why} | | | | | | |"
    cells = [name, str(len(lost))]
    for what in (NOTICED, SERVED):
        times = [math.inf if f.value is None else f.value for f in _of(of_fault, fault, what)]
        cells += [_seconds(percentile(times, share)) if times else "—" for share in (0.5, 0.99)]
    cut_offs = sum(figure.value or 0 for figure in _of(of_fault, fault, CUT_OFFS))
    cells += [f"{sum(lost):.0f}", f"{cut_offs:.0f}", _who_acted(fault, of_fault, len(lost))]
    return f"| {' | '.join(cells)} |"


def _who_acted(fault: str, of_fault: Sequence[Figure], tries: int) -> str:
    """Return the names of those who repaired the fault, such as the agent or a person, each with the number
    of tries in which it acted, unless it acted in all `tries`. Return NOBODY if there are none. `of_fault`
    has all figures of the fault named `fault`.
    """
    begin, counts = row(fault, ACTED_BY), dict[str, int]()
    for figure in of_fault:
        if figure.row.startswith(begin):
            actor = figure.row.removeprefix(begin).replace("_", " ")
            counts[actor] = counts.get(actor, 0) + 1
    words = (name if count == tries else f"{name} ({count} of {tries})" for name, count in counts.items())
    return ", ".join(words) or NOBODY


def _of(of_fault: Sequence[Figure], fault: str, what: str) -> list[Figure]:
    return [figure for figure in of_fault if figure.row == row(fault, what)]


def _seconds(value: float) -> str:
    if math.isinf(value):
        return "never"
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.1f} s" if value < 100 else f"{value:.0f} s"
