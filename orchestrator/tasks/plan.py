"""Who does what: the lead's answer, read leniently. Pure.

A large model writes the lines it is asked for, or JSON; a small one writes anything. What names no agent is
no plan, and then every agent is asked about the whole goal.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

MOST_PARTS = 8
MOST_PART_CHARS = 2000
_LINE = re.compile(
    r"""^[\s>*#+•-]*(?:\d+[.)]\s*)?[*_`"'\[]*"""  # a bullet, a number, marks around the name
    r"""(?P<name>[^\s:*_`"'\]][^:]{0,80}?)[*_`"'\]]*\s*:(?P<part>.*)$"""
)
_NAMES = ("agent", "name", "who", "role")
_PARTS = ("part", "task", "goal", "what", "work", "instruction", "description", "question")


@dataclass(frozen=True)
class SubTask:
    """One agent's share; an empty `goal` means the whole."""

    agent: str
    goal: str = ""


def read(text: str, names: Collection[str]) -> tuple[SubTask, ...]:
    """The parts that the lead's answer gives to agents there are, each agent once; () where it gives none."""
    known = {name.casefold(): name for name in names}
    found: dict[str, list[str]] = {}
    for said, part in [*_from_json(text)] or [*_from_lines(text)]:
        name = known.get(said.strip().strip("*_`\"'[]").removeprefix("@").casefold())
        if name is not None:
            found.setdefault(name, []).append(part.strip())
    parts = (SubTask(name, " ".join(filter(None, said))[:MOST_PART_CHARS]) for name, said in found.items())
    return tuple(parts)[:MOST_PARTS]


def everybody(names: Iterable[str]) -> tuple[SubTask, ...]:
    """The plan where the lead has none: each agent is asked about the whole goal."""
    return tuple(SubTask(name) for name in names)[:MOST_PARTS]


def _from_lines(text: str) -> Iterable[tuple[str, str]]:
    for line in text.splitlines():
        match = _LINE.match(line[: MOST_PART_CHARS + 200])
        if match:
            yield match["name"], match["part"].strip(" *_")


def _from_json(text: str) -> Iterable[tuple[str, str]]:
    start = min((place for place in (text.find("["), text.find("{")) if place >= 0), default=-1)
    end = max(text.rfind("]"), text.rfind("}"))
    if start < 0 or end < start:
        return []
    try:
        document = json.loads(text[start : end + 1])
    except (ValueError, RecursionError):
        return []
    return list(_entries(document))


def _entries(document: Any) -> Iterable[tuple[str, str]]:
    if isinstance(document, list):
        for entry in document:
            if isinstance(entry, str):
                yield entry, ""
            elif isinstance(entry, dict):
                yield from _entries(entry)
        return
    if not isinstance(document, dict):
        return
    name = next((document[key] for key in _NAMES if isinstance(document.get(key), str)), None)
    if name is not None:
        part = next((document[key] for key in _PARTS if isinstance(document.get(key), str)), "")
        yield name, part
        return
    for key, value in document.items():  # {"reader": "…"}, or {"plan": […]}
        if isinstance(value, str):
            yield key, value
        elif isinstance(value, list):
            yield from _entries(value)
