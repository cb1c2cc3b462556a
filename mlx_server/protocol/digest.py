"""Identify this version of the protocol, so that a gateway and an engine of different code part before they
exchange messages.

A gateway that runs for days starts engines from the code that is on the disk then. After an update, that is
newer code than the gateway's own. The gateway therefore passes PROTOCOL_DIGEST to each engine in the
environment variable DIGEST_VARIABLE, and an engine with another digest exits with EXIT_OTHER_PROTOCOL.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from typing import Any

import msgspec.inspect

from mlx_server.protocol.events import Event
from mlx_server.protocol.operations import Op

DIGEST_VARIABLE = "VESTAL_PROTOCOL_DIGEST"
EXIT_OTHER_PROTOCOL = 76  # EX_PROTOCOL


def digest_of(*messages: Any) -> str:
    """Return a hexadecimal digest of the message types `messages`: of the names, tags, fields, types and
    defaults of their structs, and of all structs within them. Docstrings do not count.
    """
    return hashlib.sha256(repr(msgspec.inspect.multi_type_info(messages)).encode()).hexdigest()[:16]


PROTOCOL_DIGEST = digest_of(Op, Event)
"""The digest of the operations and events that this process knows."""


def is_other_protocol(environment: Mapping[str, str] = os.environ) -> bool:
    """Return True if the process that started this one has another version of the protocol, according to the
    digest in the environment variable DIGEST_VARIABLE. Return False if that variable is not set.
    """
    return environment.get(DIGEST_VARIABLE, PROTOCOL_DIGEST) != PROTOCOL_DIGEST
