"""Find the images that a body names by URL, and put the contents of the images, as data URLs, in the place of
these URLs. Pure: the caller fetches the images in between.

A body is either the received JSON, or the Pydantic object that was validated from it.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from mlx_server.gateway.images.files import is_address

_CONTAINERS = ("messages", "input", "content", "output")
"""The fields of a body, an item or a message that may contain parts of messages."""
_IMAGE_FIELDS = {"image_url": ("image_url",), "input_image": ("image_url",), "image": ("source",)}
"""The fields that hold an image's source, by the type of the part."""


def addresses_in(body: Any) -> list[tuple[str, str]]:
    """Return (path in the body, URL) for each image that is named by a URL, in the order of the body."""
    return list(_addresses(body, ""))


def with_files(body: Any, files: Mapping[str, bytes]) -> Any:
    """Return a copy of the body in which the URLs that are keys of `files` are replaced by the files, as data
    URLs.
    """
    data_urls = {
        address: f"data:;base64,{base64.b64encode(data).decode('ascii')}" for address, data in files.items()
    }
    return _replaced(body, data_urls)


def _addresses(value: Any, path: str) -> Iterator[tuple[str, str]]:
    for name, inner in _inside(value):
        here = f"{path}.{name}" if path else str(name)
        if isinstance(inner, str):
            yield here, inner
        else:
            yield from _addresses(inner, here)


def _inside(value: Any) -> Iterator[tuple[str | int, Any]]:
    """Yield the direct parts of `value` that are URLs of images or may contain some.

    If `value` is a list, yield (index, element) for each element. Otherwise `value` is an object: yield
    (name, list) for each field with a list of items, messages or parts, and (name, URL) for a field that
    names an image by URL. The name of a URL in an inner object is a path, such as `image_url.url`.
    """
    if isinstance(value, list | tuple):
        yield from enumerate(value)
        return
    for name in _CONTAINERS:
        inner = _field(value, name)
        if isinstance(inner, list):
            yield name, inner
    for name in _source_fields(value):
        inner = _field(value, name)
        if isinstance(inner, str):
            if is_address(inner):
                yield name, inner
        elif inner is not None:
            address = _field(inner, "url")
            if isinstance(address, str) and is_address(address):
                yield f"{name}.url", address


def _source_fields(value: Any) -> Sequence[str]:
    part_type = _field(value, "type")
    return _IMAGE_FIELDS.get(part_type, ()) if isinstance(part_type, str) else ()


def _field(value: Any, name: str) -> Any:
    if isinstance(value, Mapping):
        return value.get(name)
    return getattr(value, name, None) if isinstance(value, BaseModel) else None


def _replaced(value: Any, data_urls: Mapping[str, str]) -> Any:
    if isinstance(value, list | tuple):
        return [_replaced(each, data_urls) for each in value]
    changes: dict[str, Any] = {}
    for name in _CONTAINERS:
        if isinstance(inner := _field(value, name), list):
            changes[name] = _replaced(inner, data_urls)
    for name in _source_fields(value):
        inner = _field(value, name)
        if isinstance(inner, str):
            changes[name] = data_urls.get(inner, inner)
        elif isinstance(url := _field(inner, "url"), str) and url in data_urls:
            changes[name] = _with(inner, {"url": data_urls[url]})
    return _with(value, changes) if changes else value


def _with(value: Any, changes: Mapping[str, Any]) -> Any:
    return value.model_copy(update=changes) if isinstance(value, BaseModel) else {**value, **changes}
