"""Messages as frames and back: MessagePack by msgspec, and JSON for the rare text that MessagePack refuses.

Python strings can hold lone surrogates (a client's or a model's JSON may spell `\\ud83d` alone), and Python
integers can exceed 64 bits. MessagePack can carry neither. Such a message crosses as JSON, written by the
standard library with the surrogates encoded as three bytes each ("surrogatepass"). Pure.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from mlx_server.protocol.base import ProtocolError
from mlx_server.protocol.events import Done, Event, Failed, Token
from mlx_server.protocol.frames import JSON, MSGPACK, pack_frame, unpack_frame
from mlx_server.protocol.operations import Generate, Op

MAX_NESTING = 500
"""How deep the JSON inside a message may be nested. Python's decoders stop at its recursion limit, 1,000 less
the present depth of the stack; half of that can be read wherever it arrives."""

_SCALARS = (str, int, float, bool, type(None))
_encoder = msgspec.msgpack.Encoder()
_operations: msgspec.msgpack.Decoder[Op] = msgspec.msgpack.Decoder(Op)
_events: msgspec.msgpack.Decoder[Event] = msgspec.msgpack.Decoder(Event)


def encode(message: Op | Event) -> bytes:
    """Return `message` as one frame.

    Raises ProtocolError for what cannot be written, or would not be readable: a value that is not JSON where
    JSON belongs, nesting over MAX_NESTING, a payload over MAX_FRAME_BYTES.
    """
    try:
        if any(_is_nested_too_deeply(value) for value in _free_form_json(message)):
            raise ProtocolError(f"JSON nested deeper than {MAX_NESTING} levels")
        try:
            return pack_frame(MSGPACK, _encoder.encode(message))
        except (UnicodeEncodeError, OverflowError):
            return pack_frame(JSON, _to_json(message))
    except (TypeError, ValueError, RecursionError) as error:
        raise ProtocolError(f"{type(message).__name__}: {error}") from error


def decode_op(frame: bytes) -> Op:
    """Return the operation in `frame`. Raises ProtocolError, naming the field."""
    return _decode(frame, _operations)


def decode_event(frame: bytes) -> Event:
    """Return the event in `frame`. Raises ProtocolError, naming the field."""
    return _decode(frame, _events)


def _decode(frame: bytes, decoder: msgspec.msgpack.Decoder) -> Any:
    payload_format, payload = unpack_frame(frame)
    try:
        if payload_format == MSGPACK:
            return decoder.decode(payload)
        return msgspec.convert(_from_json(payload), decoder.type)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise ProtocolError(f"{error}; received {payload[:80]!r}") from error


def _to_json(message: Op | Event) -> bytes:
    text = json.dumps(msgspec.to_builtins(message), ensure_ascii=False, separators=(",", ":"))
    return text.encode("utf-8", "surrogatepass")


def _from_json(payload: bytes) -> Any:
    return json.loads(payload.decode("utf-8", "surrogatepass"))


def _free_form_json(message: Op | Event) -> Iterator[Any]:
    """Yield the parts of a message whose nesting no type limits."""
    match message:
        case Generate():
            yield (message.messages, message.tools, message.template, message.json_schema)
        case Token() | Done():
            for call in message.tool_calls or ():
                yield call.arguments
        case Failed():
            yield message.fields


def _is_nested_too_deeply(value: Any) -> bool:
    """Return True if `value` is nested deeper than MAX_NESTING. Raises TypeError if it is not JSON.

    Some of mlx-lm's parsers evaluate a tool call's arguments as Python, so they may be a set or bytes.
    """
    level = [value]
    for _ in range(MAX_NESTING):
        level = [child for item in level for child in _children(item)]
        if not level:
            return False
    return True


def _children(item: Any) -> Iterable[Any]:
    if isinstance(item, dict) and all(isinstance(key, _SCALARS) for key in item):
        return item.values()
    if isinstance(item, (list, tuple)):
        return item
    if isinstance(item, _SCALARS):
        return ()
    raise TypeError(f"{item!r} is not JSON")
