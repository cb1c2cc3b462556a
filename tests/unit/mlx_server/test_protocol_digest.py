"""Two processes with different message types notice it by a digest, before they exchange messages."""

from __future__ import annotations

from typing import Any, Literal

import msgspec
import pytest

from mlx_server.protocol.base import EngineEvent, Value
from mlx_server.protocol.digest import DIGEST_VARIABLE, PROTOCOL_DIGEST, digest_of, is_other_protocol


def message(**fields: object) -> type:
    """Return a new message type `Sent` with these fields: a type, or a pair of a type and a default."""
    given: Any = [
        (name, *field) if isinstance(field, tuple) else (name, field) for name, field in fields.items()
    ]
    return msgspec.defstruct("Sent", given, bases=(EngineEvent,), frozen=True)


class Inner(Value, frozen=True):
    count: int


BASE = message(id=str, inner=Inner)


def test_digest_of_equal_message_types_is_equal_whatever_their_docstrings_say():
    other = message(id=str, inner=Inner)
    other.__doc__ = "Another text."
    assert digest_of(other) == digest_of(BASE)


@pytest.mark.parametrize(
    "changed",
    [
        message(id=str, inner=Inner, extra=(int, 0)),
        message(id=str),
        message(id=int, inner=Inner),
        message(id=str, inner=(Inner, Inner(1))),
        message(id=Literal["a"], inner=Inner),
        message(number=str, inner=Inner),
    ],
)
def test_digest_changes_with_any_field_type_or_default(changed):
    assert digest_of(changed) != digest_of(BASE)


def test_digest_changes_with_a_field_of_a_struct_within_a_message():
    def digest_with(*fields: Any) -> str:
        inner = msgspec.defstruct("Inner", fields, bases=(Value,), frozen=True)
        return digest_of(message(id=str, inner=inner))

    assert digest_with(("count", int)) == digest_with(("count", int))
    assert digest_with(("count", int)) != digest_with(("count", int), ("limit", int, 0))


@pytest.mark.parametrize(
    ("environment", "is_other"),
    [({}, False), ({DIGEST_VARIABLE: PROTOCOL_DIGEST}, False), ({DIGEST_VARIABLE: "another"}, True)],
)
def test_engine_has_another_protocol_only_if_its_gateway_names_a_different_digest(environment, is_other):
    assert is_other_protocol(environment) is is_other
