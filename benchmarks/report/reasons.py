"""Find the reason, in `reasons.yaml`, why Vestal is worse than a peer in a row of the results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import yaml

FILE = Path(__file__).with_name("reasons.yaml")


@dataclass(frozen=True)
class Reason:
    """The reason why Vestal is worse than a peer in some rows. `rows` and `against`, the peer, are patterns
    that may contain `*`.
    """

    rows: str
    because: str
    against: str = "*"


def load(file: Path = FILE) -> list[Reason]:
    """Return the reasons in `file`, a YAML list of why Vestal is worse than a peer in some rows of the
    results. Raises ValueError if an entry has unknown or missing keys.
    """
    entries = yaml.safe_load(file.read_text(encoding="utf-8")) or []
    try:
        return [Reason(**entry) for entry in entries]
    except TypeError as error:
        raise ValueError(f"{file.name}: {error}") from error


def reason_for(reasons: Sequence[Reason], row: str, peer: str) -> str | None:
    """Return the first written reason why Vestal lost the row to the peer; None if none is written."""
    fitting = (one for one in reasons if fnmatchcase(row, one.rows) and fnmatchcase(peer, one.against))
    return next((" ".join(one.because.split()) for one in fitting), None)
