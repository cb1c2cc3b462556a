"""Make a shared library once, in the first folder that can be written, and find it there afterwards."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path


def made_once(name: str, folders: Iterable[Path], make: Callable[[Path], None]) -> Path | None:
    """Return the path of the file `name` in the first of the folders that has it or in which it can be made.

    `make` writes the file to the path it is given, and raises OSError or subprocess.SubprocessError if it
    cannot. A file that a power cut has left empty, or with zeros instead of its beginning, is made again.
    Return None if no folder has the file and it cannot be made in any of them.
    """
    for folder in folders:
        library = folder / name
        try:
            if not _has_content(library):
                _make(library, make)
        except (OSError, subprocess.SubprocessError):
            continue
        return library
    return None


def _has_content(library: Path) -> bool:
    """Return True if the file exists and does not begin with zeros. Raises OSError if it cannot be read."""
    try:
        with library.open("rb") as file:
            return any(file.read(4))
    except FileNotFoundError:
        return False


def _make(library: Path, make: Callable[[Path], None]) -> None:
    library.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=library.parent, prefix=f".{library.name}-") as folder:
        whole = Path(folder) / library.name
        make(whole)
        with whole.open("rb") as file:
            os.fsync(file.fileno())  # or a power cut could leave the new name without the content
        whole.replace(library)  # in one step: an engine that starts at the same moment must find all of it
