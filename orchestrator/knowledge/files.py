"""The files of an agent's knowledge folder: which there are, and what is in them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

MARKDOWN = {".md", ".markdown"}
READ = MARKDOWN | {".txt", ".rst", ".text"}
MOST_BYTES = 4 * 2**20


@dataclass(frozen=True)
class Found:
    """A file as the folder lists it; `path` is relative to the folder, with forward slashes."""

    path: str
    full: Path
    size: int
    mtime_ns: int


@dataclass(frozen=True)
class Skipped:
    """A file that is not read, and why."""

    path: str
    why: str


def folders(root: Path, named: dict[str, Path]) -> dict[str, Path]:
    """The knowledge folder of each agent: root's own folders, then the named ones over them."""
    try:
        own = {
            entry.name: entry for entry in sorted(root.iterdir()) if entry.is_dir() and entry.name[0] != "."
        }
    except OSError:
        own = {}
    return {**own, **{agent: folder for agent, folder in named.items() if folder.is_dir()}}


def walk(folder: Path) -> Iterator[Found | Skipped]:
    """Every readable text file below the folder. Links are not followed below it: no loop, no way out."""
    for base, below, names in os.walk(folder):
        below[:] = sorted(name for name in below if name[0] != "." and not Path(base, name).is_symlink())
        for name in sorted(names):
            full = Path(base, name)
            if name[0] == "." or full.suffix.lower() not in READ or full.is_symlink():
                continue
            path = full.relative_to(folder).as_posix()
            try:
                stat = full.stat()
            except OSError as error:
                yield Skipped(path, f"unreadable ({error.strerror})")
                continue
            if stat.st_size > MOST_BYTES:
                yield Skipped(path, f"{stat.st_size} bytes, over the {MOST_BYTES} that are read")
            else:
                yield Found(path, full, stat.st_size, stat.st_mtime_ns)


def read(found: Found) -> tuple[str, str] | Skipped:
    """The file's SHA-256 and text; bytes that are no UTF-8 become replacement characters."""
    try:
        raw = found.full.read_bytes()
    except OSError as error:
        return Skipped(found.path, f"unreadable ({error.strerror})")
    if b"\0" in raw[:8192]:
        return Skipped(found.path, "binary")
    return hashlib.sha256(raw).hexdigest(), raw.decode("utf-8-sig", errors="replace")


def is_markdown(path: str) -> bool:
    return Path(path).suffix.lower() in MARKDOWN
