"""Tell the files of a folder that people and programs put there from those that the system adds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path


def is_hidden(name: str) -> bool:
    """Return whether a file is hidden by its name, such as `.DS_Store`.

    On exFAT disks and network shares, macOS keeps the attributes of the file `model.safetensors` in a file
    `._model.safetensors` in the same folder, which has the same suffix and another format.
    """
    return name.startswith(".")


def visible(paths: Iterable[Path]) -> Iterator[Path]:
    """Yield those of `paths` whose last part is not the name of a hidden file."""
    return (path for path in paths if not is_hidden(path.name))
