"""What a diagnosis says."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from vestal.config import Config

WITHIN_S = 20.0


@dataclass(frozen=True)
class Finding:
    """`fault` is to be mended, `note` is worth knowing, `ok` was looked at and is well.

    `sentence` names the cause, `evidence` by what it was recognized, `remedy` what to do.
    """

    name: str
    level: Literal["ok", "note", "fault"]
    sentence: str
    remedy: str = ""
    evidence: str = ""


@dataclass(frozen=True)
class Diagnosis:
    """One cause that is looked for. `look` may take `within_s`; then it is named as hung, not waited for."""

    name: str
    look: Callable[[Config], Iterator[Finding]]
    within_s: float = WITHIN_S
