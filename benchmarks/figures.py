"""Store and read figures, which are what benchmarks measured: one JSON object per line."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Literal

VESTAL = "vestal"
"""The subject of Vestal's own figures. The other subjects are the names of peers."""

Better = Literal["higher", "lower"]


@dataclass(frozen=True)
class Figure:
    """One measured value, or one failure to measure it.

    `row` names what was measured, with slashes: `serving/tokens_per_s/4`. `subject` names what was measured
    there: `vestal`, a variant of it, or a peer. `value` has the unit `unit`, and `better` says whether a
    higher or lower value is an advantage. A failure has no `value`; instead, `failed` is a sentence that says
    why. `round` counts from 1; `at` is a Unix time in seconds. `scenario` is filled in by the run that stores
    the figure.
    """

    row: str
    subject: str
    value: float | None = None
    unit: str = ""
    better: Better = "higher"
    round: int = 1
    at: float = field(default_factory=time.time)
    failed: str | None = None
    scenario: str = ""

    def __post_init__(self) -> None:
        if (self.value is None) == (self.failed is None):
            raise ValueError(f"A figure has either a value or a failure: {self.row} of {self.subject}.")


def write(stream: IO[str], figure: Figure) -> None:
    """Write a figure as one line and flush it, so that a run that is killed keeps all earlier figures."""
    stream.write(to_line(figure))
    stream.flush()


def to_line(figure: Figure) -> str:
    """Return a figure as a line of JSON, without empty fields."""
    kept = {name: value for name, value in asdict(figure).items() if value not in (None, "")}
    return json.dumps(kept, ensure_ascii=False) + "\n"


def read(path: Path) -> list[Figure]:
    """Return the figures in a file; none if there is no file.

    A last line without an end is left out, because its writer was killed while writing it. Raises ValueError,
    with the number of the line, if any other line is not a figure.
    """
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return []
    return list(parse(text.split("\n")[:-1], str(path)))


def parse(lines: Iterable[str], source: str = "figures") -> Iterator[Figure]:
    """Yield the figure in each of `lines`, which must all be complete. Empty lines are skipped. Raises
    ValueError, with `source` (where the lines come from) and the number of the line, if a line is not a
    figure.
    """
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                yield Figure(**json.loads(line))
            except (ValueError, TypeError) as error:
                raise ValueError(f"{source}, line {number} is no figure: {error}") from error


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest of `values` for which at least the share `share` (0 to 1) of all values are as
    small or smaller (the nearest-rank percentile). Raises ValueError if there are no values.
    """
    if not values:
        raise ValueError("There are no values to take a percentile of.")
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]
