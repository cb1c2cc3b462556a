"""Define which charts are drawn from a run's figures, and the README's block that shows three of
them. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from benchmarks.figures import Figure
from benchmarks.report.bars import Bar, Group, chart
from benchmarks.report.markdown import number
from benchmarks.report.summary import Row, compare, rows_of, subjects_of

FOLDER = "benchmarks/results/plots"
BEGIN = "<!-- figures: made by `python -m benchmarks.report publish` -->"
END = "<!-- end of figures -->"


@dataclass(frozen=True)
class Plot:
    """One bar chart. `file` is the name of its SVG file. `groups` has a pair for each group of bars: the
    group's label, and the name of the row of figures that the bars show, one bar for each subject (Vestal or
    a peer).

    `noted` may name a further row. After the value of each bar, the subject's value in that row is then
    written too, followed by the words `note`.
    """

    file: str
    title: str
    subtitle: str
    groups: tuple[tuple[str, str], ...]
    noted: str = ""
    note: str = ""


KILLED = Plot(
    "killed.svg",
    "Seconds until text comes again after kill -9",
    "and how many of the four streams that ran at the kill were lost; less is better",
    (("kill -9 of the engine", "serving/killed/text_again_s"),),
    noted="serving/killed/requests_lost_of_4",
    note="of 4 lost",
)
FIRST_TOKEN = Plot(
    "first_token.svg",
    "Seconds to the first token of 1,700 tokens",
    "less is better",
    (
        ("never seen before", "serving/first_token_s/1700/cold"),
        ("again", "serving/first_token_s/1700/again"),
        ("again, after kill -9", "serving/first_token_s/1700/after_kill"),
    ),
)
SPEED = Plot(
    "tokens_per_s.svg",
    "Tokens a second",
    "all streams together, prompts included; more is better",
    tuple((f"{n} stream{'s' * (n > 1)}", f"serving/tokens_per_s/{n}") for n in (1, 4, 8, 16)),
)
IN_README = (KILLED, FIRST_TOKEN, SPEED)
PLOTS = (
    *IN_README,
    Plot(
        "first_token_6000.svg",
        "Seconds to the first token of 6,000 tokens",
        "less is better",
        tuple((label, row.replace("1700", "6000")) for label, row in FIRST_TOKEN.groups),
    ),
    Plot(
        "inter_token.svg",
        "Pauses between the parts of a text, p99 in ms",
        "alone, and while a prompt of 6,000 tokens is read; less is better",
        (
            ("alone", "serving/inter_token_ms/alone/p99"),
            ("beside the prompt", "serving/inter_token_ms/beside_prefill/p99"),
        ),
    ),
    Plot(
        "drafting.svg",
        "Tokens a second with guessed tokens",
        "from the first text to the last, one stream and four; more is better",
        tuple(
            (f"{label}, {n} stream{'s' * (n > 1)}", f"drafting/{answer}/{n}")
            for answer, label in (
                ("copying", "repeats a text"),
                ("prose", "prose"),
                ("schema", "JSON of a schema"),
            )
            for n in (1, 4)
        ),
    ),
)


def svg_files(figures: Sequence[Figure]) -> dict[str, str]:
    """Draw the charts of PLOTS with the values in `figures`. Return a dict from file names to SVG texts. A
    chart is left out if `figures` has no value for it.
    """
    rows = {row.name: row for row in rows_of(figures)}
    charts = {plot.file: (plot, list(_groups(plot, rows))) for plot in PLOTS}
    return {
        file: chart(plot.title, plot.subtitle, groups) for file, (plot, groups) in charts.items() if groups
    }


def readme_block(figures: Sequence[Figure]) -> str:
    """Return the README's block with its three charts and their content in words, between the two comments
    that mark it.
    """
    rows = {row.name: row for row in rows_of(figures)}
    lines = [BEGIN]
    for plot in IN_README:
        if groups := list(_groups(plot, rows)):
            lines += ["", f"![{_in_words(plot, groups)}]({FOLDER}/{plot.file})"]
    losses = sum(bool(found and found.lost) for found in map(compare, rows.values()))
    lost = f" Rows that Vestal loses: {losses}, each with its reason." if losses else ""
    page = "[All results](benchmarks/RESULTS.md), with their spread, the machine and the versions."
    return "\n".join([*lines, "", page + lost, END])


def _groups(plot: Plot, rows: dict[str, Row]) -> Iterator[Group]:
    for label, name in plot.groups:
        if name in rows and any(cell.values for cell in rows[name].cells.values()):
            yield Group(label, [_bar(plot, rows, name, subject) for subject in subjects_of([rows[name]])])


def _bar(plot: Plot, rows: dict[str, Row], name: str, subject: str) -> Bar:
    cell = rows[name].cells[subject]
    if cell.median is None:
        return Bar(subject, None, "failed")
    shown = number(cell.median)
    noted = rows[plot.noted].cells.get(subject) if plot.noted in rows else None
    if noted and noted.median is not None:
        shown += f", {number(noted.median)} {plot.note}"
    return Bar(subject, cell.median, shown, cell.spread)


def _in_words(plot: Plot, groups: Sequence[Group]) -> str:
    """Return the content of a chart as one line of text, for readers who cannot see the chart."""
    shown = (
        f"{group.label}: " + ", ".join(f"{bar.name} {bar.shown}" for bar in group.bars) for group in groups
    )
    return f"{plot.title}. {'; '.join(shown)}."
