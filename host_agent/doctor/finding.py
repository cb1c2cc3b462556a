"""What a diagnosis says."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Finding:
    """`fault` is to be mended, `note` is worth knowing, `ok` was looked at and is well."""

    name: str
    level: Literal["ok", "note", "fault"]
    sentence: str
    remedy: str = ""
