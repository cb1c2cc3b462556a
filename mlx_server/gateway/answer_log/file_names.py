"""The names of the answers' files. A name holds every fact about an ended answer that the start of a gateway
needs, so that the file need not be read. Pure.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

_NAME = re.compile(
    r"(\d{1,18})\.([A-Za-z0-9_-]{1,80})\.([A-Za-z0-9_-]{0,80})\.v(\d{1,9})\.(open|ended)", re.A
)
_WORD = re.compile(r"[A-Za-z0-9_-]{1,80}", re.A)


@dataclass(frozen=True)
class FileName:
    """The facts that the name of an answer's file holds, so that the start of a gateway need not read the
    file.

    `number` counts the answers in the order of their acceptance. It makes the name unique even on a file
    system that ignores case. `id` is the answer's id. `key` is derived from the client's Idempotency-Key, and
    None without one. `format` is the number of the oldest format that can hold the file's records. `ended` is
    True if the answer has ended.
    """

    number: int
    id: str
    key: str | None
    format: int
    ended: bool

    def __str__(self) -> str:
        state = "ended" if self.ended else "open"
        return f"{self.number:012}.{self.id}.{self.key or ''}.v{self.format}.{state}"

    def as_ended(self) -> FileName:
        """Return the name that the file gets when its answer has ended."""
        return replace(self, ended=True)

    def in_format(self, number: int) -> FileName:
        """Return the name that the file gets when a record needs the format with this number."""
        return replace(self, format=number)

    @classmethod
    def parse(cls, name: str) -> FileName | None:
        """Return the facts in a file's name; None if it is not the name of an answer's file."""
        match = _NAME.fullmatch(name)
        if match is None:
            return None
        number, answer_id, key, version, state = match.groups()
        parsed = cls(int(number), answer_id, key or None, int(version), state == "ended")
        return parsed if str(parsed) == name else None


def may_be_in_a_name(word: str) -> bool:
    """Return whether `word`, an answer's id or the digest of an idempotency key, can be a part of a file's
    name: 1 to 80 ASCII letters, digits, hyphens and underscores.
    """
    return _WORD.fullmatch(word) is not None
