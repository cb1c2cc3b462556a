"""Cut a byte stream into frames, each of which carries one message. Pure.

A frame is a format byte, the payload's length (4 bytes, big-endian) and the payload. Anything else that
arrives at the socket, such as the lines of another version's protocol, is recognized by its first byte.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from mlx_server.protocol.base import ProtocolError

MSGPACK, JSON = b"M", b"J"
"""The formats of a payload. `codec` says when JSON is used."""

MAX_FRAME_BYTES = 64 * 1024 * 1024
"""The longest payload in bytes. A prompt as long as the gateway's limit for a request body fits."""

_HEADER = struct.Struct(">cI")


def pack_frame(payload_format: bytes, *payload: bytes) -> bytes:
    """Return the frame that carries the parts of `payload`, joined. `payload_format`, MSGPACK or JSON, is the
    format in which the payload is encoded. Raises ProtocolError if the payload is longer than
    MAX_FRAME_BYTES.
    """
    length = sum(map(len, payload))
    if length > MAX_FRAME_BYTES:
        raise ProtocolError(f"{length} bytes are over the limit of {MAX_FRAME_BYTES} for one frame")
    return b"".join((_HEADER.pack(payload_format, length), *payload))


def unpack_frame(frame: bytes) -> tuple[bytes, bytes]:
    """Return the format and the payload of one whole frame. Raises ProtocolError if the header is invalid or
    the payload does not have the announced length.
    """
    if len(frame) < _HEADER.size:
        raise ProtocolError(f"a frame of {len(frame)} bytes has no whole header")
    payload_format, length = _read_header(frame, 0)
    payload = frame[_HEADER.size :]
    if len(payload) != length:
        raise ProtocolError(f"the header announces {length} bytes, and {len(payload)} follow")
    return payload_format, payload


class FrameBuffer:
    """Collects the chunks of a byte stream and cuts them into frames, wherever the chunks were split."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Add `data`, the next chunk of the stream, and yield each frame that is now complete, header
        included. The beginning of an incomplete frame is kept for the next call.

        Raises ProtocolError at the first invalid header; nothing after it can be read.
        """
        self._buffer += data
        start, available = 0, len(self._buffer)
        try:
            while available - start >= _HEADER.size:
                end = start + _HEADER.size + _read_header(self._buffer, start)[1]
                if end > available:
                    break
                frame = bytes(self._buffer[start:end])
                start = end
                yield frame
        finally:
            del self._buffer[:start]


def _read_header(data: bytes | bytearray, start: int) -> tuple[bytes, int]:
    payload_format, length = _HEADER.unpack_from(data, start)
    if payload_format not in (MSGPACK, JSON) or length > MAX_FRAME_BYTES:
        found = bytes(data[start : start + 80])
        raise ProtocolError(f"no frame begins with {found!r}; do both processes have the same version?")
    return payload_format, length
