"""Show the result of a run as Markdown, for the terminal and for benchmarks/results/. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from benchmarks.chaos.histogram import Histogram
from benchmarks.chaos.tally import Tally
from benchmarks.chaos.verdict import TextVerdict

CAUSES = ("cause", "times", "no effect", "streams", "pause p50", "p99", "max", "refused", "503")
REQUESTS = ("requests", "lost", "doubled", "different", "equal", "cut off", "back by id", "back by key")


def markdown(title: str, facts: Mapping[str, str], tally: Tally) -> str:
    """Return the result of a run as a Markdown document. `facts`, such as the machine and the settings, say
    how the run was measured, and are listed under the title. The tables and the samples below them are made
    from `tally`.
    """
    return "\n".join(
        [
            f"# {title}",
            "",
            *(f"- {name}: {value}" for name, value in facts.items()),
            "",
            *_table(REQUESTS, [_requests(tally)]),
            "",
            *_table(CAUSES, _causes(tally)),
            *(["", *(f"- {sample}" for sample in tally.samples)] if tally.samples else []),
            "",
        ]
    )


def _requests(tally: Tally) -> Sequence[str]:
    verdicts, back = tally.verdicts, tally.comebacks
    counts = (verdicts[TextVerdict.LOST], verdicts[TextVerdict.DOUBLED], verdicts[TextVerdict.DIFFERENT])
    equal = f"{verdicts[TextVerdict.EQUAL]} ({tally.equal_share:.2%})"
    return [str(tally.sent), *map(str, counts), equal, *map(str, (back.cut_off, back.by_id, back.by_key))]


def _causes(tally: Tally) -> list[Sequence[str]]:
    return [
        (
            name,
            str(cause.count),
            str(cause.without_effect),
            str(len(cause.pauses)),
            *_figures(cause.pauses),
            str(cause.refused),
            str(cause.busy),
        )
        for name, cause in sorted(tally.causes.items())
    ]


def _figures(pauses: Histogram) -> Sequence[str]:
    if not len(pauses):
        return ("-", "-", "-")
    return [f"{s:.2f} s" for s in (pauses.percentile(0.5), pauses.percentile(0.99), pauses.max_s)]


def _table(names: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(names, *rows, strict=True)]

    def line(cells: Sequence[str]) -> str:
        padded = [
            cell.ljust(width) if index == 0 else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        return f"| {' | '.join(padded)} |"

    rules = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return [line(names), line(rules), *map(line, rows)]
