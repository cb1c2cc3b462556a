"""Show a run's figures as tables in Markdown. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.figures import Figure
from benchmarks.report.reasons import Reason, reason_for
from benchmarks.report.summary import Cell, Comparison, Row, compare, rows_of, subjects_of

NO_REASON = "no reason is known yet."


TableMaker = Callable[[Sequence[Figure]], str]


@dataclass(frozen=True)
class Stored:
    """A stored run. `ends` says how each scenario ended, by its name."""

    name: str
    figures: Sequence[Figure]
    machine: Mapping[str, Any]
    ends: Mapping[str, str]


def run_markdown(
    run: Stored, about: Mapping[str, str], reasons: Sequence[Reason], own_tables: Mapping[str, TableMaker]
) -> str:
    """Return a run's report in Markdown: a description of the machine, and a section with a table for each
    scenario.

    `about` maps the name of a scenario to what it measures. `reasons` say why, in some rows of the tables,
    Vestal is worse than a peer, which is a program that Vestal is compared with. `own_tables` maps the name
    of a scenario that needs special columns to the function that makes its table.
    """
    parts = [_machine(run)]
    for scenario in dict.fromkeys(figure.scenario for figure in run.figures):
        figures = [figure for figure in run.figures if figure.scenario == scenario]
        head = f"### {scenario or 'other figures'}\n\n"
        if text := about.get(scenario):
            head += f"{text[0].upper()}{text[1:]}.\n\n"
        ended = run.ends.get(scenario, "done")
        if ended != "done":
            head += f"This scenario is not complete: {ended}.\n\n"
        make = own_tables.get(scenario, lambda found: table_of(rows_of(found), reasons))
        parts.append(head + make(figures))
    return "\n".join(parts)


def table_of(rows: Sequence[Row], reasons: Sequence[Reason]) -> str:
    """Return the rows as a Markdown table. Below it come the measurements that failed, and then the lost
    rows, in which Vestal is worse than the best peer, each with its reason from `reasons`.
    """
    subjects = subjects_of(rows)
    lines = [
        f"| row | unit | {' | '.join(subjects)} | against the best peer |",
        f"|---|---|{'--:|' * len(subjects)}--:|",
    ]
    lost = []
    for row in rows:
        comparison = compare(row)
        cells = [_cell(row.cells.get(subject)) for subject in subjects]
        unit = f"{row.unit}, {'more' if row.better == 'higher' else 'less'} is better" if row.unit else ""
        lines.append(f"| `{row.name}` | {unit} | {' | '.join(cells)} | {_against(row, comparison)} |")
        if comparison and comparison.lost:
            because = reason_for(reasons, row.name, comparison.peer) or NO_REASON
            lost.append(f"- `{row.name}` is lost to {comparison.peer}: {because}")
    text = "\n".join(lines) + "\n"
    if failures := _failures(rows):
        text += "\nFailures:\n\n" + "\n".join(failures) + "\n"
    if lost:
        text += "\nLost rows:\n\n" + "\n".join(lost) + "\n"
    return text


def lost_without_reason(rows: Sequence[Row], reasons: Sequence[Reason]) -> list[str]:
    """Return the names of the rows that Vestal loses and for which there is no reason."""
    compared = ((row, compare(row)) for row in rows)
    return [
        row.name
        for row, found in compared
        if found and found.lost and reason_for(reasons, row.name, found.peer) is None
    ]


def number(value: float) -> str:
    """Return a value as text with about three digits; a whole number below 1,000 is shown exactly."""
    if value == int(value) and abs(value) < 1000:
        return f"{value:.0f}"
    for limit, digits in ((100, 0), (10, 1), (1, 2)):
        if abs(value) >= limit:
            return f"{value:,.{digits}f}"
    return f"{value:.3g}"


def _cell(cell: Cell | None) -> str:
    if cell is None:
        return ""
    if cell.median is None or cell.spread is None:
        return "failed"
    text = number(cell.median)
    if len(cell.values) > 1:
        text += f" ({number(cell.spread[0])}–{number(cell.spread[1])})"
    return text + (f", {len(cell.failures)} failed" if cell.failures else "")


def _against(row: Row, comparison: Comparison | None) -> str:
    if comparison is None:
        return ""
    if comparison.ratio is not None:
        text = f"{comparison.ratio:.2f} × {comparison.peer}"
    elif not any(row.cells[peer].values for peer in row.cells if peer == comparison.peer):
        return "no peer has a figure"
    else:
        text = {(True, False): "better than", (False, True): "worse than"}.get(
            (comparison.won, comparison.lost), "equal to"
        ) + f" {comparison.peer}"
    return f"**lost: {text}**" if comparison.lost else text


def _failures(rows: Sequence[Row]) -> list[str]:
    """Return an item of a Markdown list for each different failure of each subject (Vestal, a variant of it,
    or a peer). An item names the subject and the first row in which the failure occurs, and says in how many
    more rows it occurs.
    """
    found: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        for subject, cell in row.cells.items():
            for failure in dict.fromkeys(cell.failures):
                found.setdefault((subject, failure), []).append(row.name)
    lines = []
    for (subject, failure), names in found.items():
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        lines.append(f"- {subject}, `{names[0]}`{more}: {_plain(failure)}")
    return lines


def _plain(text: str) -> str:
    """Return the text as inline code on one line, so that Markdown does not interpret it."""
    return "`" + " ".join(text.split()).replace("`", "'") + "`"


def _machine(run: Stored) -> str:
    machine = run.machine
    packages = ", ".join(f"{name} {version}" for name, version in machine.get("packages", {}).items())
    peers = ", ".join(f"{name} {version}".strip() for name, version in machine.get("peers", {}).items())
    lines = [
        f"- Run: `{run.name}`, begun {machine.get('date', '')}; load average {machine.get('load_before', '')}"
        " before it",
        f"- Machine: {machine.get('processor', '')}, {machine.get('cores', '')} cores, "
        f"{machine.get('memory_gb', '')} GB of memory, accelerator: {machine.get('accelerator', 'none')}",
        f"- System: {machine.get('system', '')}, Python {machine.get('python', '')}",
        f"- Versions: Vestal {machine.get('vestal', '')}, {packages}",
        f"- Peers: {peers or 'none'}",
    ]
    for name, why in machine.get("skipped", {}).items():
        lines.append(f"- {name} was left out: {why}")
    unmeasured = [name for name, ended in run.ends.items() if not _has(run, name) and ended != "done"]
    lines += [f"- {name} has no figures: {run.ends[name]}." for name in unmeasured]
    return "\n".join(lines) + "\n"


def _has(run: Stored, scenario: str) -> bool:
    return any(figure.scenario == scenario for figure in run.figures)
