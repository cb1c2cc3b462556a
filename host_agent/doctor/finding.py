"""The types of a diagnosis and of the findings that it reports."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from vestal.config import Config

TIMEOUT_S = 20.0
Level = Literal["ok", "note", "fault"]


@dataclass(frozen=True)
class Finding:
    """One result of a diagnosis: a fault, a note, or that nothing is wrong.

    `level` is `fault` if something must be repaired, `note` if it is only worth knowing, and `ok` if nothing
    is wrong. `name` is the diagnosis's name, `sentence` says what was found, `evidence` what shows it, and
    `remedy` what a person can do; the last two may be empty.
    """

    name: str
    level: Level
    sentence: str
    remedy: str = ""
    evidence: str = ""


@dataclass(frozen=True)
class Diagnosis:
    """A check for one cause of trouble. `diagnose` yields the findings, and changes nothing on this machine.

    If `diagnose` takes longer than `timeout_s`, the doctor reports that instead.
    """

    name: str
    diagnose: Callable[[Config], Iterator[Finding]]
    timeout_s: float = TIMEOUT_S
