"""Refuse JSON with more values than any normal request has, before it is parsed. Pure.

A Python object takes 30 to 1,000 bytes for 2 or 3 bytes of JSON. Without this limit, 30 MB of `[[],[],…`
would take 1.5 GB of memory and delay all other clients by seconds.
"""

from __future__ import annotations

from mlx_server.gateway.errors import TooLarge

MAX_PARTS = 128 * 1024
"""The limit on texts (including names of fields), lists and objects. A chat message has 5 or more of them."""
MAX_VALUES = 2**20 + MAX_PARTS
"""The limit on values of all kinds. It is large because a prompt may be given as 2**20 token ids."""
_SLICE_BYTES = 64 * 1024


def check_counts(raw: bytes) -> None:
    """Raise TooLarge if the JSON in `raw` has over MAX_PARTS parts (texts, lists and objects) or MAX_VALUES
    values.

    In invalid JSON, the count is right only up to the first mistake. That is enough, because a parser stops
    there.
    """
    parts = values = 0
    in_text, carried = False, b""
    for start in range(0, len(raw), _SLICE_BYTES):
        piece = carried + raw[start : start + _SLICE_BYTES]
        is_cut = (len(piece) - len(piece.rstrip(b"\\"))) % 2 == 1  # between a backslash and what it escapes
        piece, carried = (piece[:-1], b"\\") if is_cut else (piece, b"")
        runs = piece.replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"')
        structure = b"".join(runs[1::2] if in_text else runs[::2])
        opened = structure.count(b"[") + structure.count(b"{")
        quotes = len(runs) - 1
        parts += opened + (quotes + (not in_text)) // 2
        values += opened + structure.count(b",")
        in_text ^= quotes % 2 == 1
        if parts > MAX_PARTS:
            raise _too_many(MAX_PARTS, "texts, lists and objects")
        if values > MAX_VALUES:
            raise _too_many(MAX_VALUES, "values")


def _too_many(limit: int, what: str) -> TooLarge:
    message = f"The body holds more than {limit} {what}; send fewer messages, tools or inputs in one request."
    return TooLarge("too_large", message, max_values=limit)
