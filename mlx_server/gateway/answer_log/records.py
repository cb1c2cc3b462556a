"""The records of an answer's file and their format: length, checksum, MessagePack. Pure.

The length has 4 bytes and the CRC-32 another 4, both big-endian. The checksum is computed with the length as
its start value, so that it covers the length too. A run of zeros, which some file systems leave at a file's
end after a power cut, therefore does not count as a record.
"""

from __future__ import annotations

import struct
import zlib
from typing import Any

import msgspec

from mlx_server import protocol
from mlx_server.protocol import Done, Failed, ProtocolError, Token

FORMAT, FORMAT_OF_REFERENCES, OLDEST_FORMAT = 2, 2, 1
"""The numbers of the newest format, of the first format that can hold what a request's body refers to (the
record `Referenced`, and the field `referenced` of `Accepted`), and of the oldest format that can be read.

When a record or a field is added, or changes its meaning, FORMAT must be raised, and `format_of` must return
its new number for such records. A file's name holds the highest number that its records need. So if an
earlier version of the gateway is installed again, it can read all files except those with newer records."""

_HEADER = struct.Struct(">II")


class _Stored(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="record", tag=str.lower):
    """Base class of the records that are written to a file. The field `record` holds the class name in lower
    case.
    """


class Accepted(_Stored, frozen=True, omit_defaults=True):
    """The HTTP request as it was accepted: the first record of every file.

    `format` is the newest format that the gateway that accepted the request can read. If another machine
    serves the request, the accepting gateway reads the records that the other machine writes, so none of
    these records may need a newer format.

    `created_s` is in seconds since 1970. `query` is without the question mark. All random draws of the
    request are derived from `seed`. `key_digest` is a digest of the idempotency key, or None without one;
    `body_digest` is one of the body. `version` is the version of the MLX server that accepted the request.

    `referenced` is a copy of what the body names by an id, such as the conversation that it continues, in the
    form that the request's API dialect chooses. With the copy, the request can be run again even if the
    original was deleted meanwhile. The files of a long conversation's turns therefore repeat the
    conversation, as the bodies of the other dialects do. If several files shared one copy, a file could be
    deleted only after checking that no other file needs it.
    """

    format: int
    id: str
    created_s: float
    method: str
    path: str
    query: str
    headers: tuple[tuple[str, str], ...]
    body: bytes
    seed: int
    key_digest: str | None
    body_digest: str
    version: str
    referenced: tuple[bytes, ...] = ()


class Referenced(_Stored, frozen=True):
    """What the request's body refers to: `parts` are the field `referenced` of `Accepted`. This record is
    written only if they were unknown when `Accepted` was written, which happens if another machine received
    the request.
    """

    parts: tuple[bytes, ...]


class Event(msgspec.Struct, frozen=True):
    """An event of the engine that the client received, as part of answer number `answer`, from 0 (OpenAI's
    `n`).
    """

    answer: int
    event: Token | Done | Failed


class Silence(_Stored, frozen=True):
    """The client received a keep-alive at this point, because no event had come for a while. `answer` is the
    number of one of the request's answers that had not ended then.
    """

    answer: int


class Left(_Stored, frozen=True):
    """The client disconnected. The request is suspended until somebody asks for its answer."""


class TakenUp(_Stored, frozen=True):
    """The suspended request was resumed."""


class Ended(_Stored, frozen=True):
    """All answers of the request have ended, and each has its last event in the file. This is the last record
    of a finished file. (The file of a request that fails or is cancelled is deleted instead.)
    """


class _StoredEvent(_Stored, frozen=True, tag="event"):
    """The form in which an `Event` is stored if MessagePack can hold it; otherwise it is stored as an
    `_EventFrame`. The fields are those of `Event`.
    """

    answer: int
    event: Token | Done | Failed


class _EventFrame(_Stored, frozen=True, tag="frame"):
    """An `Event` that MessagePack cannot hold, for example because its text has unpaired surrogates. `frame`
    is the event of the engine, as a frame of the protocol between gateway and engine. `answer` is as for
    `Event`: the number of the answer in its request.
    """

    answer: int
    frame: bytes


Record = Accepted | Referenced | Event | Silence | Left | TakenUp | Ended

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(
    Accepted | Referenced | _StoredEvent | _EventFrame | Silence | Left | TakenUp | Ended
)


def format_of(record: Record) -> int:
    """Return the number of the oldest format that can hold a record."""
    refers = record.referenced if isinstance(record, Accepted) else isinstance(record, Referenced)
    return FORMAT_OF_REFERENCES if refers else OLDEST_FORMAT


def pack_record(record: Record) -> bytes:
    """Return the record as bytes, with its header. Raises ValueError if the record cannot be encoded, for
    example because one of its texts has unpaired surrogates. These can be encoded in an `Event` only.
    """
    try:
        payload = _pack_event(record) if isinstance(record, Event) else _encoder.encode(record)
        return _HEADER.pack(len(payload), zlib.crc32(payload, len(payload))) + payload
    except (OverflowError, TypeError, RecursionError, struct.error) as error:
        raise ValueError(f"{type(record).__name__}: {error}") from error


def _pack_event(record: Event) -> bytes:
    try:
        return _encoder.encode(_StoredEvent(record.answer, record.event))
    except (UnicodeEncodeError, OverflowError):
        return _encoder.encode(_EventFrame(record.answer, protocol.encode(record.event)))


def packed_bytes(accepted: Accepted, body_bytes: int) -> int:
    """Return how many bytes the packed record of a request will have once its body of `body_bytes` bytes is
    added. The body in `accepted` must be empty. Raises ValueError if the record cannot be packed.

    The field `referenced`, what the body refers to, is counted by its length, but not packed, because it may
    be large.
    """
    empty = msgspec.structs.replace(accepted, referenced=(b"",) * len(accepted.referenced))
    texts_bytes = (body_bytes, *map(len, accepted.referenced))
    return len(pack_record(empty)) + sum(map(_added_bytes, texts_bytes))


def _added_bytes(size_bytes: int) -> int:
    """Return by how many bytes a packed record grows if a field that holds empty bytes gets `size_bytes`
    bytes instead. MessagePack stores the length of a field in 1, 2 or 4 bytes; that of an empty field in 1
    byte.
    """
    length_bytes = 1 if size_bytes < 2**8 else 2 if size_bytes < 2**16 else 4
    return length_bytes - 1 + size_bytes


def read_records(data: bytes) -> tuple[list[Record], int]:
    """Return the records at the beginning of `data`, and how many bytes these records take up.

    Reading stops at the first record that is cut off, damaged, or unknown to this version. Never raises.
    """
    records: list[Record] = []
    view, start = memoryview(data), 0
    while start + _HEADER.size <= len(data):
        length, checksum = _HEADER.unpack_from(data, start)
        payload = view[start + _HEADER.size : start + _HEADER.size + length]
        if len(payload) != length or zlib.crc32(payload, length) != checksum:
            break
        try:
            records.append(_record_in(payload))
        except (msgspec.MsgspecError, ProtocolError, ValueError, RecursionError):
            break
        start += _HEADER.size + length
    return records, start


def _record_in(payload: memoryview) -> Record:
    stored = _decoder.decode(payload)
    if isinstance(stored, _StoredEvent):
        return Event(stored.answer, stored.event)
    if isinstance(stored, _EventFrame):
        event = protocol.decode_event(stored.frame)
        if not isinstance(event, Token | Done | Failed):
            raise ProtocolError(f"{type(event).__name__} is not given to a client")
        return Event(stored.answer, event)
    return stored
