"""The number of the format in which the state folder is written. Pure.

A program that reads a lower number migrates the folder; a higher one is refused, since an older program would
misread or destroy what a newer one keeps there. Format 1 is the folder without a number as it was until then,
with the number: everything in it stays as it is.
"""

from __future__ import annotations

from dataclasses import dataclass

CURRENT = 1
FILE_NAME = "format"
MAX_DIGITS = 9


@dataclass(frozen=True)
class FormatJudgement:
    """What to do with a folder.

    `migrate_from` is the format from which it has to be migrated, None if it is current. `refusal` is the
    sentence with which every program refuses to use it, empty if it may be used.
    """

    migrate_from: int | None = None
    refusal: str = ""


def judge(text: str | None, folder: str) -> FormatJudgement:
    """Judge the contents of the folder's format file; `text` is None without one.

    An empty file is what a full disk has left of one, and counts as none.
    """
    words = (text or "").split()
    if not words:
        return FormatJudgement(migrate_from=0)
    is_number = words[0].isascii() and words[0].isdigit() and len(words[0]) <= MAX_DIGITS
    if len(words) != 1 or not is_number:
        sentence = f"{folder}/{FILE_NAME} holds no number, so it is not known which Vestal wrote this folder"
        return FormatJudgement(
            refusal=f"{sentence}: write {CURRENT} into the file, or set VESTAL_HOME to another one."
        )
    number = int(words[0])
    if number > CURRENT:
        sentence = f"{folder} was written by a newer Vestal (format {number}; this one knows up to {CURRENT})"
        return FormatJudgement(
            refusal=f"{sentence}: update this checkout, or set VESTAL_HOME to another folder."
        )
    return FormatJudgement(migrate_from=number if number < CURRENT else None)
