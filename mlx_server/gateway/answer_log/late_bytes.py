"""Bytes that the writing thread makes: packing a large body would keep the event loop from all streams."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from mlx_server.gateway.answer_log.records import Accepted, pack_record, packed_bytes

MAX_PACKED_AT_ONCE_BYTES = 256 * 1024
"""A larger body is packed by the writing thread."""


class LateBytes:
    """The bytes that `make` returns, of which there are `size_bytes`."""

    def __init__(self, size_bytes: int, make: Callable[[], bytes]) -> None:
        self._size_bytes = size_bytes
        self.make = make

    def __len__(self) -> int:
        return self._size_bytes


Chunk = bytes | LateBytes


def packed(accepted: Accepted, body: Sequence[bytes]) -> Chunk:
    """Return the record of a request with this body, now or later. Raises ValueError as `pack_record`."""
    size_bytes = sum(map(len, body))

    def make() -> bytes:
        return pack_record(msgspec.structs.replace(accepted, body=b"".join(body)) if body else accepted)

    if size_bytes <= MAX_PACKED_AT_ONCE_BYTES:
        return make()
    return LateBytes(packed_bytes(accepted, size_bytes), make)


def made(chunks: Sequence[Chunk]) -> list[bytes]:
    """Return all chunks as bytes."""
    return [chunk.make() if isinstance(chunk, LateBytes) else chunk for chunk in chunks]
