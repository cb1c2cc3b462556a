"""The types of a diagnosis and of the findings that it reports."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from vestal.config import Config

TIMEOUT_S = 20.0
Level = Literal["ok", "note", "fault"]


@dataclass(frozen=True)
class Finding:
    """One result of a diagnosis.

    A `fault` needs a remedy, a `note` is worth knowing, and `ok` means that nothing is wrong. `sentence`
    names the cause, `evidence` what shows it, and `remedy` what to do.
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
