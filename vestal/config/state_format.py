"""The number of the format in which the state folder (`$VESTAL_HOME`) is written. Pure.

A program migrates a folder with a lower number, and refuses one with a higher number, because an older
program would misread or destroy what a newer one keeps there. Format 0 is a folder without a number, as the
first versions wrote it. Format 1 is the same folder with the number: nothing else in it differs.
"""

from __future__ import annotations

from dataclasses import dataclass

CURRENT = 1
FILE_NAME = "format"
MAX_DIGITS = 9


@dataclass(frozen=True)
class FormatJudgement:
    """The decision whether a program may use a state folder, and whether it has to migrate the folder first.

    `migrate_from` is the number of the older format that the folder has; None if no migration is needed.
    `refusal` is the sentence with which every program refuses to use the folder; empty if it may be used.
    """

    migrate_from: int | None = None
    refusal: str = ""


def judge_unreadable(folder: str, owner: str, reason: str) -> FormatJudgement:
    """Return the judgement that refuses a state folder whose format file belongs to the user `owner` and
    cannot be read, for the operating system's `reason`. `folder` is the state folder's path.
    """
    file = f"{folder}/{FILE_NAME}"
    sentence = f"{file} belongs to {owner} and cannot be read ({reason})"
    why = f"{sentence}, so it is not known which Vestal wrote this folder"
    remedy = f'`sudo chown "$(id -un)" {file}; chmod 600 {file}`, or set VESTAL_HOME to another folder'
    return FormatJudgement(refusal=f"{why}: {remedy}.")


def judge(text: str | None, folder: str) -> FormatJudgement:
    """Decide whether this version of Vestal can use a state folder, and whether it must first migrate the
    folder.

    `text` is the content of the folder's format file; None if there is no such file. `folder` is the state
    folder's path, which a refusal names. A folder without the file has format 0. An empty file counts as a
    missing one, because a full disk may leave an empty file behind. The folder is refused if the file holds
    anything but a number, or a number above CURRENT, the newest format that this version knows.
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
