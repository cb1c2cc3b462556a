"""Define the base classes that fix how each message is encoded, and the error for a message that cannot be
sent or read.
"""

from __future__ import annotations

import msgspec


class ProtocolError(ValueError):
    """Bytes are not a message of this protocol, or a message cannot be written as a frame.

    The text names the message and, if there is one, the field at fault.
    """


class Value(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A value inside a message. Fields that have their default value are not sent."""


class Operation(Value, frozen=True, tag_field="op", tag=str.lower):
    """A message from the gateway to the engine. On the wire, `op` holds the class name in lower case."""


class EngineEvent(Value, frozen=True, tag_field="ev", tag=str.lower):
    """A message from the engine to the gateway. On the wire, `ev` holds the class name in lower case."""
