r"""Encode messages as frames and decode them: MessagePack by msgspec, and JSON for the rare value that
MessagePack refuses. Pure.

Python strings can hold lone surrogates (a client's or a model's JSON may spell `\ud83d` alone), and Python
integers can exceed 64 bits. MessagePack can carry neither. A message with such a value is sent as JSON,
written by the standard library with each surrogate encoded as three bytes ("surrogatepass").
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from typing import Any

import msgspec

from mlx_server.protocol.base import ProtocolError
from mlx_server.protocol.events import Done, Event, Failed, Token
from mlx_server.protocol.frames import JSON, MAX_FRAME_BYTES, MSGPACK, pack_frame, unpack_frame
from mlx_server.protocol.free_form import check_json
from mlx_server.protocol.operations import Generate, Op

MAX_ADDED_BYTES = 8 * 1024 * 1024
"""How many bytes a prepared operation leaves free in its frame for fields that are added later: the ids of an
answer's tokens, at most 7 bytes each, for the longest contexts there are.
"""

_MSGPACK_MAP = struct.Struct(">BH")  # the byte 0xde, then the number of fields
_encoder = msgspec.msgpack.Encoder()
_operations: msgspec.msgpack.Decoder[Op] = msgspec.msgpack.Decoder(Op)
_events: msgspec.msgpack.Decoder[Event] = msgspec.msgpack.Decoder(Event)


def encode(message: Op | Event) -> bytes:
    """Return `message` as one frame.

    Raises ProtocolError if the message cannot be written or could not be read again: a value that is not JSON
    where JSON belongs, nesting deeper than MAX_NESTING, or a payload over MAX_FRAME_BYTES.
    """
    try:
        for field, value in _free_form_json(message):
            check_json(field, value)
        try:
            return pack_frame(MSGPACK, _encoder.encode(message))
        except (UnicodeEncodeError, OverflowError):
            return pack_frame(JSON, _to_json(message))
    except (TypeError, ValueError, RecursionError) as error:
        raise ProtocolError(f"{type(message).__name__}: {error}") from error


class PreparedOp:
    """An operation, made by `prepare`, whose large fields are already encoded and known to fit into a frame.

    `frame` adds the fields that differ from one sending to the next. It cannot fail, so a request that was
    prepared before it was accepted can be sent to any number of engines. Requests that differ only in the
    added fields may share one PreparedOp.

    `encoded` has the names and values of the encoded fields, one after another, without a header or braces
    around them. `payload_format` is their format, MSGPACK or JSON, and `fields` their number.
    """

    __slots__ = ("_encoded", "_fields", "_format")

    def __init__(self, payload_format: bytes, encoded: bytes, fields: int) -> None:
        self._format = payload_format
        self._encoded = encoded
        self._fields = fields

    def frame(self, **added: Any) -> bytes:
        """Return the operation as one frame, with the fields `added` to it."""
        added = {name: msgspec.to_builtins(value) for name, value in added.items()}
        if self._format == JSON:
            return pack_frame(JSON, b"{", self._encoded, b",", _json_fields(added), b"}")
        header = _MSGPACK_MAP.pack(0xDE, self._fields + len(added))
        return pack_frame(MSGPACK, header, self._encoded, _msgpack_fields(added))


def prepare(operation: Op, *added_later: str) -> PreparedOp:
    """Return `operation` encoded without the fields `added_later`, which `PreparedOp.frame` adds.

    Raises ProtocolError, as `encode` does, if a field cannot be written or the operation is too long. If a
    field with free-form JSON is at fault, the error's text begins with the field's name.
    """
    for field, value in _free_form_json(operation):
        check_json(field, value)
    fields: dict[str, Any] = {"op": operation.__struct_config__.tag}
    later: dict[str, Any] = {}
    for name in operation.__struct_fields__:
        (later if name in added_later else fields)[name] = getattr(operation, name)
    try:
        _msgpack_fields(later)  # such values can be added to either format
        try:
            payload_format, encoded = MSGPACK, _msgpack_fields(fields)
        except (UnicodeEncodeError, OverflowError):
            payload_format, encoded = JSON, _json_fields(fields)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise ProtocolError(str(error)) from error
    most = MAX_FRAME_BYTES - MAX_ADDED_BYTES
    if len(encoded) > most:
        raise ProtocolError(f"{len(encoded)} bytes are over the limit of {most} for one request")
    return PreparedOp(payload_format, encoded, len(fields))


def decode_op(frame: bytes) -> Op:
    """Return the operation in `frame`. Raises ProtocolError, which names the field, if the frame is not a
    valid operation.
    """
    return _decode(frame, _operations)


def decode_event(frame: bytes) -> Event:
    """Return the event in `frame`. Raises ProtocolError, which names the field, if the frame is not a valid
    event.
    """
    return _decode(frame, _events)


def _decode(frame: bytes, decoder: msgspec.msgpack.Decoder) -> Any:
    payload_format, payload = unpack_frame(frame)
    try:
        if payload_format == MSGPACK:
            return decoder.decode(payload)
        return msgspec.convert(_from_json(payload), decoder.type)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise ProtocolError(f"{error}; received {payload[:80]!r}") from error


def _msgpack_fields(fields: dict[str, Any]) -> bytes:
    """Return the names and values of a MessagePack map, without the map's header."""
    buffer = bytearray()
    for name, value in fields.items():
        _encoder.encode_into(name, buffer, -1)
        _encoder.encode_into(value, buffer, -1)
    return bytes(buffer)


def _json_fields(fields: dict[str, Any]) -> bytes:
    """Return the names and values of a JSON object, without the braces."""
    return _to_json(fields)[1:-1]


def _to_json(message: Any) -> bytes:
    text = json.dumps(msgspec.to_builtins(message), ensure_ascii=False, separators=(",", ":"))
    return text.encode("utf-8", "surrogatepass")


def _from_json(payload: bytes) -> Any:
    return json.loads(payload.decode("utf-8", "surrogatepass"))


def _free_form_json(message: Op | Event) -> Iterator[tuple[str, Any]]:
    """Yield the name and value of each field of `message` whose type allows JSON of any shape and depth."""
    match message:
        case Generate():
            for name in ("messages", "tools", "template", "json_schema"):
                yield name, getattr(message, name)
        case Token() | Done():
            for call in message.tool_calls or ():
                yield "arguments", call.arguments
        case Failed():
            yield "fields", message.fields
