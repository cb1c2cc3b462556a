"""Decide which web pages may use a service, by the Origin that a browser or a web view sends. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

_HOST = re.compile(rb"(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<name>[A-Za-z0-9._-]+))(?::\d{0,5})?")


@dataclass(frozen=True)
class OriginRules:
    """The pages of other origins that a service admits.

    `names` are hosts whose pages may come over http and https, from any port. `schemes` are those of programs
    with a web view (`app` for Electron, `tauri`), which no page from the network can have. `patterns` are
    whole origins in lower case, in which `*` stands for any text; `*` alone admits every page.
    """

    names: frozenset[str] = frozenset()
    schemes: frozenset[str] = frozenset()
    patterns: Collection[str] = ()

    def admit(self, origin: bytes) -> bool:
        """Return whether a page of this Origin may use the service."""
        origin = origin.lower()
        scheme, separator, host = origin.partition(b"://")
        if separator and scheme.decode("latin-1") in self.schemes:
            return True
        if scheme in (b"http", b"https") and host_name(host) in self.names:
            return True
        text = origin.decode("latin-1")
        return any(_matches(pattern, text) for pattern in self.patterns)


def host_name(host: bytes) -> str:
    """Return the name in a Host header, or "" for a malformed one.

    `[::1]:80` → `::1`, `LocalHost.:80` → `localhost`
    """
    match = _HOST.fullmatch(host)
    if match is None:
        return ""
    return (match["v6"] or match["name"]).decode("ascii").lower().rstrip(".")


def _matches(pattern: str, text: str) -> bool:
    """Return whether the text is the pattern, with any text for each `*`. Takes time linear in the text."""
    first, *others = pattern.split("*")
    if not others:
        return text == first
    if not text.startswith(first):
        return False
    *middle, last = others
    position = len(first)
    for part in middle:
        found = text.find(part, position)
        if found < 0:
            return False
        position = found + len(part)
    return len(text) - position >= len(last) and text.endswith(last)
