"""Strict JSON-line coding of frozen dataclasses, by their own type hints; the standard library only.

A message is one JSON object on one line. `encode` writes all fields but those that are None. `Decoder.decode`
refuses what it does not know: an unknown tag or field, a missing field, a wrong type. Both ends ship
together, so a refusal is a bug or a torn line, never an old peer, and naming the culprit is worth more than
leniency.
"""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from collections.abc import Mapping
from typing import Any


class ProtocolError(ValueError):
    """A line that is no message of this protocol. It names the message, the field and the value."""


def encode(message: Any, tag: str) -> bytes:
    """`message`, a dataclass instance with a class variable `KIND`, as one NDJSON line under `tag`.

    Raises ProtocolError for what JSON has no word for, such as an infinite number.
    """
    body = {tag: type(message).KIND, **_plain(message)}
    try:
        text = json.dumps(body, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ProtocolError(f"{type(message).KIND}: cannot be written as JSON ({error})") from error
    return text.encode("utf-8", "surrogatepass") + b"\n"


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        pairs = ((field.name, getattr(value, field.name)) for field in dataclasses.fields(value))
        return {name: _plain(item) for name, item in pairs if item is not None}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


class Decoder:
    """Turns lines into instances of `classes`, told apart by the field `tag` (each class's `KIND`)."""

    def __init__(self, tag: str, classes: typing.Iterable[type]) -> None:
        self._tag = tag
        self._classes = {cls.KIND: cls for cls in classes}  # type: ignore[attr-defined]

    def decode(self, line: bytes) -> Any:
        """The message in `line`. Raises ProtocolError."""
        try:
            body = json.loads(line.decode("utf-8", "surrogatepass"), parse_constant=_no_number)
        except (ValueError, RecursionError) as error:
            raise ProtocolError(f"not a line of JSON: {line[:80]!r} ({error})") from error
        if not isinstance(body, dict):
            raise ProtocolError(f"a message is a JSON object, not {type(body).__name__}: {line[:80]!r}")
        kind = body.pop(self._tag, None)
        cls = self._classes.get(kind) if isinstance(kind, str) else None
        if cls is None:
            raise ProtocolError(f'unknown "{self._tag}": {kind!r}; known: {", ".join(self._classes)}')
        return _build(cls, body, str(kind))


def _build(cls: type, body: Mapping[str, Any], where: str) -> Any:
    fields = {field.name: field for field in dataclasses.fields(cls)}
    if unknown := body.keys() - fields.keys():
        raise ProtocolError(f"{where}: unknown field {sorted(unknown)[0]!r}")
    hints = _hints(cls)
    values = {name: _check(hints[name], item, f"{where}.{name}") for name, item in body.items()}
    try:
        return cls(**values)
    except TypeError as error:
        raise ProtocolError(f"{where}: {error}") from error


def _no_number(literal: str) -> Any:
    raise ValueError(f"{literal} is no number")


_hint_cache: dict[type, dict[str, Any]] = {}


def _hints(cls: type) -> dict[str, Any]:
    if cls not in _hint_cache:
        _hint_cache[cls] = typing.get_type_hints(cls)
    return _hint_cache[cls]


def _check(hint: Any, value: Any, where: str) -> Any:
    if hint is Any:
        return value
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        return _check_union(arguments, value, where)
    if origin is typing.Literal:
        if value not in arguments:
            raise ProtocolError(f"{where}: {value!r} is none of {', '.join(map(repr, arguments))}")
        return value
    if origin is tuple:
        if not isinstance(value, list):
            raise ProtocolError(f"{where}: expected a list, got {type(value).__name__}")
        return tuple(_check(arguments[0], item, f"{where}[{i}]") for i, item in enumerate(value))
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, dict):
            raise ProtocolError(f"{where}: expected an object, got {type(value).__name__}")
        return _build(typing.cast(type, hint), value, where)
    return _check_scalar(origin or hint, value, where)


def _check_union(arguments: tuple[Any, ...], value: Any, where: str) -> Any:
    if value is None and type(None) in arguments:
        return None
    (hint,) = (argument for argument in arguments if argument is not type(None))
    return _check(hint, value, where)


def _check_scalar(kind: type, value: Any, where: str) -> Any:
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kind) or (kind is not bool and isinstance(value, bool)):
        raise ProtocolError(f"{where}: expected {kind.__name__}, got {type(value).__name__}")
    return value
