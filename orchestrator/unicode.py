"""Which strings are text: all but those with a NUL or half of a surrogate pair. Pure.

JSON can say both ("\\u0000", "\\ud800") and Python takes them;
C strings cannot hold the one, nor UTF-8 the other.
A task whose goal had one was accepted, and GET /tasks was then unreadable for everybody.
"""

from __future__ import annotations

import re

_UNSOUND = re.compile("[\x00\ud800-\udfff]")


def is_valid_unicode(text: str) -> bool:
    return _UNSOUND.search(text) is None


def replace_invalid_unicode(text: str) -> str:
    """The text with U+FFFD in the place of what is none."""
    return _UNSOUND.sub("\N{REPLACEMENT CHARACTER}", text)
