"""Find the schemas that the references of a JSON schema mean. Pure.

llguidance resolves references by the letter. Generators write references that it refuses: with the brackets
of a generic type's name, or to an anchor that is now within a larger schema.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import Any
from urllib.parse import quote, unquote, urljoin

Path = tuple[str | int, ...]
"""Where a value is in a schema: the keys and indices that lead to it from the root."""

_MAX_JOINED_STEPS = 4
"""Of how many steps of a pointer a name that contains unescaped slashes may consist."""


class ReferenceFinder:
    """Finds the schemas that references within `root` mean.

    By the standard, a reference starts at the nearest enclosing schema that has an `$id`, or at the root. A
    schema that was put into another one, with its own definitions, is often not found there. It is then
    looked for from the reference outward, in each schema that encloses it.
    """

    def __init__(self, root: Any) -> None:
        self._root = root
        self._order: dict[int, int] = {}  # by the ids of objects, their positions in the document
        self._anchors: dict[str, list[tuple[int, Path]]] = {}
        self._resources: dict[str, list[tuple[int, Path]]] = {}
        self._index(root, (), "")

    def find(self, reference: str, path: Path) -> Path | None:
        """Return where the schema is that `reference` means, if the reference is in the object at `path`.
        Return None if there is no such schema in the document.
        """
        document, _, fragment = reference.partition("#")
        enclosing = self._enclosing(path)
        starts = self._starts(document, path, enclosing)
        if fragment and not fragment.startswith("/"):
            return self._anchor(fragment, path, enclosing) if starts else None
        for length, value in starts:
            start = path[:length] if isinstance(length, int) else length
            for pointer in dict.fromkeys((unquote(fragment), fragment)):
                found = _follow(value, pointer.split("/")[1:], start)
                if found is not None:
                    return found
        return None

    def target(self, path: Path) -> Any:
        """Return the schema at `path`, which `find` has returned."""
        value = self._root
        for step in path:
            value = value[step]
        return value

    def _index(self, value: Any, path: Path, base: str) -> None:
        if isinstance(value, dict):
            position = self._order[id(value)] = len(self._order)
            for key in ("$anchor", "$dynamicAnchor", "$id", "id"):
                name = value.get(key)
                if isinstance(name, str) and (key.endswith("nchor") or name.startswith("#")):
                    self._anchors.setdefault(name.removeprefix("#"), []).append((position, path))
            if (own := _resource_id(value)) is not None:
                base = _joined(base, own)
                for name in dict.fromkeys((own, base)):
                    self._resources.setdefault(name.removesuffix("#"), []).append((position, path))
            for key, item in value.items():
                self._index(item, (*path, key), base)
        elif isinstance(value, list):
            for number, item in enumerate(value):
                self._index(item, (*path, number), base)

    def _enclosing(self, path: Path) -> list[tuple[int, dict[str, Any]]]:
        """Return the object at `path` and then the objects that contain it, each with the length of its
        path.
        """
        value: Any = self._root
        found: list[tuple[int, dict[str, Any]]] = []
        for length in range(len(path) + 1):
            if isinstance(value, dict):
                found.append((length, value))
            try:
                value = value[path[length]] if length < len(path) else None
            except (KeyError, IndexError, TypeError):  # the reference was copied to a place of its own
                break
        return found[::-1]

    def _starts(
        self, document: str, path: Path, enclosing: list[tuple[int, dict[str, Any]]]
    ) -> list[tuple[Path | int, Any]]:
        """Return the schemas where a reference to `document` may start, the likeliest first, each with its
        path or, if it encloses the reference at `path`, the length of its path.
        """
        if not document:
            own = [start for start in enclosing if _resource_id(start[1]) is not None]
            return [*(own or enclosing[-1:])[:1], *enclosing]
        base = ""
        for _, value in reversed(enclosing):
            base = _joined(base, _resource_id(value) or "")
        for name in (_joined(base, document).removesuffix("#"), document):
            if name in self._resources:
                nearest = self._nearest(self._resources[name], path, enclosing)
                return [(nearest, self.target(nearest))]
        return []

    def _anchor(self, name: str, path: Path, enclosing: list[tuple[int, dict[str, Any]]]) -> Path | None:
        for spelled in dict.fromkeys((name, unquote(name))):
            if places := self._anchors.get(spelled):
                return self._nearest(places, path, enclosing)
        return None

    def _nearest(
        self, places: list[tuple[int, Path]], path: Path, enclosing: list[tuple[int, dict[str, Any]]]
    ) -> Path:
        """Return the one of `places` that shares the most enclosing objects with the reference at `path`.
        `places` are in the order of the document, so it is one of the two next to the reference.
        """
        after = bisect_left(places, (self._order[id(enclosing[0][1])],))
        near = places[max(after - 1, 0) : after + 1]
        return max(near, key=lambda place: _common_length(place[1], path))[1]


def pointer_to(path: Path) -> str:
    """Return the reference to the schema at `path`, as llguidance understands it."""
    steps = (str(step).replace("~", "~0").replace("/", "~1") for step in path)
    return "#" + "".join("/" + quote(step, safe="$") for step in steps)


def _follow(value: Any, steps: list[str], path: Path) -> Path | None:
    """Return the path of the schema to which the steps of a JSON pointer lead from `value`, which is at
    `path`; None if they lead to no schema. A name with slashes or tildes need not be escaped.
    """
    if not steps:
        return path if isinstance(value, dict | bool) else None
    if isinstance(value, list):
        step = steps[0]
        if step.isascii() and step.isdecimal() and len(step) < 9 and int(step) < len(value):
            return _follow(value[int(step)], steps[1:], (*path, int(step)))
    elif isinstance(value, dict):
        for length in range(1, min(len(steps), _MAX_JOINED_STEPS) + 1):
            raw = "/".join(steps[:length])
            for name in dict.fromkeys((raw.replace("~1", "/").replace("~0", "~"), raw)):
                if name in value:
                    found = _follow(value[name], steps[length:], (*path, name))
                    if found is not None:
                        return found
    return None


def _resource_id(value: dict[str, Any]) -> str | None:
    """Return the identifier of a schema to which references within it are relative."""
    for key in ("$id", "id"):  # draft 4 has `id`
        if isinstance(name := value.get(key), str) and not name.startswith("#"):
            return name
    return None


def _joined(base: str, reference: str) -> str:
    try:
        return urljoin(base, reference)
    except ValueError:  # such as a wrong IPv6 address
        return reference


def _common_length(first: Path, second: Path) -> int:
    length = 0
    for one, other in zip(first, second, strict=False):
        if one != other:
            break
        length += 1
    return length
