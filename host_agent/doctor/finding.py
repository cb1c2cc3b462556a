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

    A `fault` needs a remedy, a `note` is worth knowing, and `ok` means that the diagnosis found nothing.
    `sentence` names the cause, `evidence` is what it was recognized by, and `remedy` is what to do.
    """

    name: str
    level: Level
    sentence: str
    remedy: str = ""
    evidence: str = ""


@dataclass(frozen=True)
class Diagnosis:
    """Looks for one cause of trouble. `diagnose` only reads: it changes nothing on this machine.

    After `timeout_s` the diagnosis itself is reported as hung.
    """

    name: str
    diagnose: Callable[[Config], Iterator[Finding]]
    timeout_s: float = TIMEOUT_S
