"""Decides whether a request's body is a JSON object. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

from vestal.web.http_error import HttpError

_SURROGATE = re.compile("[\ud800-\udfff]")


def parse_object(raw: bytes) -> dict[str, Any]:
    """Return the JSON object in `raw`, which must be UTF-8. Raise HttpError `invalid_json` otherwise.

    NaN, Infinity and half of a surrogate pair are refused: Python reads them, but they are not JSON, or not
    text that can be written again.
    """
    if not raw.strip():
        raise _invalid("The body is empty; send a JSON object.")
    body: Any = None
    try:
        body = json.loads(raw.decode("utf-8"), parse_constant=_refuse_constant)
        if b"\\u" in raw:
            json.dumps(body, ensure_ascii=False).encode("utf-8")  # fails at half of a surrogate pair
    except UnicodeEncodeError as error:
        where = field_with_text(body, lambda text: bool(_SURROGATE.search(text)))
        what = f"`{where}` holds" if where else "it holds"
        raise _invalid(f"The body is not valid UTF-8: {what} half of a surrogate pair.") from error
    except UnicodeError as error:
        raise _invalid(f"The body is not valid UTF-8: {error}.") from error
    except RecursionError as error:
        raise _invalid("The body is nested too deeply.") from error
    except ValueError as error:
        raise _invalid(f"The body is not valid JSON: {error}.") from error
    if not isinstance(body, dict):
        raise _invalid(f"The body must be a JSON object, not {_type_name(body)}.")
    return body


def field_with_text(body: Any, is_wrong: Callable[[str], bool]) -> str | None:
    """Return the name of the first field of `body` that holds, at any depth, a text that `is_wrong`.

    The name itself counts too. It is returned shortened, and as valid text. Return None where there is no
    such field, or `body` is not an object.
    """
    for name, value in body.items() if isinstance(body, dict) else ():
        if any(is_wrong(text) for text in _texts([name, value])):
            return name[:80].encode("utf-8", "replace").decode().replace("\0", "?")
    return None


def _texts(value: Any) -> Iterator[str]:
    """Yield every string in a JSON value; without recursion, since the value may be nested deeply."""
    waiting = [value]
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, dict):
            waiting += [*value, *value.values()]
        elif isinstance(value, list):
            waiting += value


def _invalid(message: str) -> HttpError:
    return HttpError("invalid_json", message)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _type_name(value: Any) -> str:
    names = {list: "a list", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")
