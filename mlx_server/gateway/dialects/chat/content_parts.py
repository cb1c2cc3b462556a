"""Parts of messages that a text model cannot read: replace a part by a sentence, or extract its text.
Pure.
"""

from __future__ import annotations

import base64


def placeholder(part_type: str) -> str:
    """Return the sentence that replaces a part of this type, so that the model can tell the user that it did
    not see the part.
    """
    name = part_type.removeprefix("input_")[:40]
    return f"\n[There was a part of type {name} here, which this model cannot read.]\n"


def file_text(data: object) -> str | None:
    """Return the text of a file that was sent as base64 or as a data URL; None if the file is not plain
    text.
    """
    if not isinstance(data, str):
        return None
    if data.startswith("data:"):
        data = data.partition(",")[2]
    try:
        raw = base64.b64decode(data, validate=True)
        return None if raw.startswith(b"%PDF") or b"\0" in raw else raw.decode("utf-8")
    except ValueError:  # the data are not base64, or the file is not UTF-8
        return None


def named_file(name: str | None, text: str) -> str:
    """Return the text of a file, headed by the file's name, for use in a message."""
    return f"\n[The file {name or 'without a name'}:]\n{text}\n"
