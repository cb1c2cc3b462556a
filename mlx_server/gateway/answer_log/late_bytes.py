"""Log records whose conversion to bytes (packing) is left to the thread that writes the log, because packing
a large body would block the event loop.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from mlx_server.gateway.answer_log.records import Accepted, pack_record, packed_bytes

MAX_PACKED_AT_ONCE_BYTES = 256 * 1024
"""The largest body, with what it refers to, that is packed at once. The writing thread packs larger ones."""


class LateBytes:
    """A placeholder for `size_bytes` bytes that do not exist yet. The writing thread gets the bytes by
    calling `make`.
    """

    def __init__(self, size_bytes: int, make: Callable[[], bytes]) -> None:
        self._size_bytes = size_bytes
        self.make = make

    def __len__(self) -> int:
        return self._size_bytes


Chunk = bytes | LateBytes


def packed(accepted: Accepted, body: Sequence[bytes]) -> Chunk:
    """Return the record of a request as bytes: `accepted`, with the joined parts in `body` as its body. If
    `body` is empty, the record keeps the body in `accepted`.

    If the body and what it refers to have more than MAX_PACKED_AT_ONCE_BYTES together, return a LateBytes
    instead, from which the thread that writes the log makes the bytes later. In both cases, this call raises
    ValueError if the record cannot be packed, as `pack_record` does.
    """
    body_bytes = sum(map(len, body)) or len(accepted.body)
    size_bytes = body_bytes + sum(map(len, accepted.referenced))

    def make() -> bytes:
        return pack_record(msgspec.structs.replace(accepted, body=b"".join(body)) if body else accepted)

    if size_bytes <= MAX_PACKED_AT_ONCE_BYTES:
        return make()
    return LateBytes(packed_bytes(msgspec.structs.replace(accepted, body=b""), body_bytes), make)


def made(chunks: Sequence[Chunk]) -> list[bytes]:
    """Return all chunks as bytes, in order. The bytes of each LateBytes are made by this call."""
    return [chunk.make() if isinstance(chunk, LateBytes) else chunk for chunk in chunks]
