"""Check the free-form JSON inside messages, so that nothing is sent that a strict JSON parser refuses. Pure.

Clients send tools, schemas and past tool calls of any shape, and models write arguments of any shape. Python
reads more than JSON allows (NaN, and 1e999 as infinity), and some of mlx-lm's parsers evaluate arguments as
Python, so that a value may be a set or bytes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from mlx_server.protocol.base import ProtocolError

MAX_NESTING = 500
"""How many levels the JSON inside a message may be nested. Python's decoders stop at its recursion limit of
1,000, less the current depth of the stack, so half of that can be read anywhere.
"""

MAX_PATH_STEPS, MAX_TEXT_LENGTH = 12, 40
"""How many steps of the path to a wrong value, and how many characters of each text, an error shows. Both
come from the client and may be of any length.
"""

_CONTAINERS = (dict, list, tuple)
_KEYS = (str, int, float, bool, type(None))


class _NotJson(Exception):
    """Some value is not JSON. `_wrong_values`, which is slower, finds out which one."""


def check_json(field: str, value: Any) -> None:
    """Check that `value` is JSON that can be passed on; `field` is the message's field that it belongs to.

    Raises ProtocolError if it is not. The text begins with the path to the wrong value:
    - `tools: JSON nested deeper than 500 levels`
    - `messages.1.tool_calls.0.function.arguments.x: NaN is not a JSON number`
    - `arguments.x: b'bytes' is not JSON`
    """
    level = [[value]]
    try:
        for _ in range(MAX_NESTING + 1):
            level = _containers_in(level)
            if not level:
                return
    except _NotJson:
        raise ProtocolError(next(_wrong_values(field, value))) from None
    raise ProtocolError(f"{field}: JSON nested deeper than {MAX_NESTING} levels")


def _containers_in(level: list[Any]) -> list[Any]:
    """Return the objects and lists directly inside the containers in `level`. Raises _NotJson if a value in
    them is not JSON.

    A schema may have a million values, so this function is written to be fast: it takes 0.07 µs for each.
    """
    found: list[Any] = []
    for container in level:
        values = container
        if isinstance(container, dict):
            values = container.values()
            try:
                "".join(container)  # the fastest way to see that all keys are strings
            except TypeError:
                if not all(isinstance(key, _KEYS) for key in container):
                    raise _NotJson from None
        for value in values:
            of_type = type(value)
            if of_type is str or of_type is int:
                continue
            if of_type is dict or of_type is list or isinstance(value, _CONTAINERS):
                found.append(value)
            elif not _is_json_scalar(value):
                raise _NotJson
    return found


def _is_json_scalar(value: Any) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    return value is None or isinstance(value, (str, int))


def _wrong_values(field: str, value: Any) -> Iterator[str]:
    """Yield a text about each key and value inside `value` that is not JSON: a number that is NaN or
    infinite, or an object of a Python type that JSON does not have, such as bytes. The text begins with the
    path to the key or value. `field`, the message's field that `value` belongs to, is the path's first step.

    The search does not use recursion, so that deeply nested values cannot exhaust the stack.
    """
    waiting: list[Iterator[tuple[tuple[str, ...], Any]]] = [iter([((field,), value)])]
    while waiting:
        path, value = next(waiting[-1], ((), None))
        if not path:
            waiting.pop()
        elif isinstance(value, _CONTAINERS):
            for key in value if isinstance(value, dict) else ():
                if not isinstance(key, _KEYS):
                    yield f"{_shown(path)}: the key {_shortened(repr(key))} is not JSON"
            waiting.append(_inside(path, value))
        elif not _is_json_scalar(value):
            yield f"{_shown(path)}: {_described(value)}"


def _inside(path: tuple[str, ...], value: Any) -> Iterator[tuple[tuple[str, ...], Any]]:
    for step, each in value.items() if isinstance(value, dict) else enumerate(value):
        yield (path if len(path) > MAX_PATH_STEPS else (*path, _shortened(str(step)))), each


def _shown(path: tuple[str, ...]) -> str:
    return ".".join([*path[:MAX_PATH_STEPS], "…"] if len(path) > MAX_PATH_STEPS else path)


def _shortened(text: str) -> str:
    """Return at most MAX_TEXT_LENGTH characters of a text, as valid Unicode."""
    shown = text if len(text) <= MAX_TEXT_LENGTH else f"{text[: MAX_TEXT_LENGTH - 1]}…"
    return shown.encode("utf-8", "replace").decode()


def _described(value: Any) -> str:
    if not isinstance(value, float):
        return f"{_shortened(repr(value))} is not JSON"
    return (
        "NaN is not a JSON number" if math.isnan(value) else "a number is over 1.8e308, the largest there is"
    )
