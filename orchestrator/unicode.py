r"""Find and replace characters that are not valid in text: NUL and lone halves of surrogate pairs. Pure.

JSON can express both (`\u0000`, `\ud800`) and Python accepts them, but C strings cannot contain NUL and UTF-8
cannot encode a lone surrogate. A task with such a goal would make GET /tasks fail for everybody.
"""

from __future__ import annotations

import re

_INVALID = re.compile("[\x00\ud800-\udfff]")


def is_valid_unicode(text: str) -> bool:
    """Return True if `text` has neither NUL nor a lone surrogate."""
    return _INVALID.search(text) is None


def replace_invalid_unicode(text: str) -> str:
    """Return the text with U+FFFD in place of each NUL and each lone surrogate."""
    return _INVALID.sub("\N{REPLACEMENT CHARACTER}", text)
