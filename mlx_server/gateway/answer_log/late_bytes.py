"""Records that the writing thread packs, because packing a large body would block the event loop."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from mlx_server.gateway.answer_log.records import Accepted, pack_record, packed_bytes

MAX_PACKED_AT_ONCE_BYTES = 256 * 1024
"""A larger body is packed by the writing thread."""


class LateBytes:
    """A stand-in for `size_bytes` bytes, which the writing thread gets by calling `make`."""

    def __init__(self, size_bytes: int, make: Callable[[], bytes]) -> None:
        self._size_bytes = size_bytes
        self.make = make

    def __len__(self) -> int:
        return self._size_bytes


Chunk = bytes | LateBytes


def packed(accepted: Accepted, body: Sequence[bytes]) -> Chunk:
    """Return the packed record of a request with this body, or LateBytes that pack a large one later.

    Raises ValueError as `pack_record` does.
    """
    size_bytes = sum(map(len, body))

    def make() -> bytes:
        return pack_record(msgspec.structs.replace(accepted, body=b"".join(body)) if body else accepted)

    if size_bytes <= MAX_PACKED_AT_ONCE_BYTES:
        return make()
    return LateBytes(packed_bytes(accepted, size_bytes), make)


def made(chunks: Sequence[Chunk]) -> list[bytes]:
    """Return all chunks as bytes."""
    return [chunk.make() if isinstance(chunk, LateBytes) else chunk for chunk in chunks]
