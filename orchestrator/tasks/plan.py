"""Parse the lead's plan, which says which agent does what. Pure. Parsing is lenient.

A large model writes the requested lines, or JSON; a small one writes anything. An answer that names no agent
is not a plan; every agent is then asked about the whole goal.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

MAX_SUBTASKS = 8
MAX_SUBTASK_CHARS = 2000
MAX_NAME_CHARS = 160  # before the colon, with what stands around the name; the expression takes its square
_NAME = re.compile(
    r"""[\s>*#+•-]*(?:\d+[.)]\s*)?[*_`"'\[]*"""  # a bullet, a number, quotation marks around the name
    r"""(?P<name>[^\s:*_`"'\]][^:]{0,80}?)[*_`"'\]]*\s*"""
)
_NAMES = ("agent", "name", "who", "role")
_PARTS = ("part", "task", "goal", "what", "work", "instruction", "description", "question")


@dataclass(frozen=True)
class SubTask:
    """One agent's part of a task. If `goal` is empty, the agent works on the goal of the whole task."""

    agent: str
    goal: str = ""


def read(text: str, names: Collection[str]) -> tuple[SubTask, ...]:
    """Return the subtasks that `text`, the lead's answer, gives to the agents `names`; () if there are none.
    The answer says each agent's part of the work: on a line such as `reader: read the notes`, or in JSON such
    as `{"reader": "read the notes"}` or `[{"agent": "reader", "part": "read the notes"}]`.

    Several parts for one agent become one subtask, and parts for unknown agents are ignored. At most
    MAX_SUBTASKS are returned.
    """
    known = {name.casefold(): name for name in names}
    found: dict[str, list[str]] = {}
    for name_text, part in [*_from_json(text)] or [*_from_lines(text)]:
        name = known.get(name_text.strip().strip("*_`\"'[]").removeprefix("@").casefold())
        if name is not None:
            found.setdefault(name, []).append(part.strip())
    parts = (
        SubTask(name, " ".join(filter(None, goals))[:MAX_SUBTASK_CHARS]) for name, goals in found.items()
    )
    return tuple(parts)[:MAX_SUBTASKS]


def everybody(names: Iterable[str]) -> tuple[SubTask, ...]:
    """Return the plan that is used if the lead gave none: every agent works on the whole goal."""
    return tuple(SubTask(name) for name in names)[:MAX_SUBTASKS]


def _from_lines(text: str) -> Iterable[tuple[str, str]]:
    for line in text.splitlines():
        before, colon, part = line[: MAX_SUBTASK_CHARS + MAX_NAME_CHARS].partition(":")
        match = _NAME.fullmatch(before) if colon and len(before) <= MAX_NAME_CHARS else None
        if match:
            yield match["name"], part.strip(" *_")


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
