"""The files of an agent's knowledge folder: which there are, and what is in them."""

from __future__ import annotations

import codecs
import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from orchestrator.unicode import is_valid_unicode, replace_invalid_unicode

MARKDOWN = {".md", ".markdown"}
READ = MARKDOWN | {".txt", ".rst", ".text"}
MOST_BYTES = 4 * 2**20
UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


@dataclass(frozen=True)
class Found:
    """A file as the folder lists it; `path` is relative to the folder, with forward slashes."""

    path: str
    full: str
    size: int
    mtime_ns: int


@dataclass(frozen=True)
class Skipped:
    """A file, or a whole folder, that is not read, and why.

    What is known of it stays known where it merely could not be read (`passing`), and leaves where it is no
    text to be read.
    """

    path: str
    why: str
    passing: bool = False
    folder: bool = False

    def covers(self, path: str) -> bool:
        return self.path in ("", path) or (self.folder and path.startswith(f"{self.path}/"))


@dataclass(frozen=True)
class Content:
    """A file's SHA-256, its text, and how many characters stand for bytes that are no UTF-8."""

    sha256: str
    text: str
    broken: int = 0


def folders(root: Path, named: dict[str, Path]) -> dict[str, Path]:
    """The knowledge folder of each agent: root's own folders, then the named ones over them.

    A named one stays, be it there or not: it may be a disk that is not mounted just now.
    """
    try:
        own = {entry.name: entry for entry in sorted(root.iterdir()) if _is_knowledge(entry)}
    except OSError:
        own = {}
    return {**own, **named}


def _is_knowledge(entry: Path) -> bool:
    return entry.name[0] != "." and is_valid_unicode(entry.name) and entry.is_dir()


def walk(folder: Path) -> Iterator[Found | Skipped]:
    """Every text file below the folder. Links are not followed below it: no loop, no way out."""
    left = [(str(folder), "")]
    while left:
        full, path = left.pop()
        try:
            with os.scandir(full) as listing:
                entries = sorted(listing, key=lambda entry: entry.name)
        except OSError as error:
            yield Skipped(
                replace_invalid_unicode(path),
                f"unreadable folder ({error.strerror})",
                passing=True,
                folder=True,
            )
            continue
        below = []
        for entry in entries:
            name = f"{path}/{entry.name}" if path else entry.name
            if entry.name[0] == ".":
                continue
            if entry.is_dir(follow_symlinks=False):
                below.append((entry.path, name))
            elif (listed := _listed(entry, name)) is not None:
                yield listed
        left += reversed(below)


def _listed(entry: os.DirEntry[str], path: str) -> Found | Skipped | None:
    suffix = os.path.splitext(entry.name)[1].lower()
    if suffix not in READ and (suffix or not entry.is_symlink()):  # a link without one may be to a folder
        return None
    if not is_valid_unicode(path):
        return Skipped(replace_invalid_unicode(path), "its name is not UTF-8")
    if entry.is_symlink():
        return Skipped(path, "a link; put the file itself here, or name its folder in orchestrator.knowledge")
    if not entry.is_file(follow_symlinks=False):
        return Skipped(path, "no regular file")
    try:
        stat = entry.stat(follow_symlinks=False)
    except OSError as error:
        return Skipped(path, f"unreadable ({error.strerror})", passing=True)
    if stat.st_size > MOST_BYTES:
        return Skipped(path, f"{stat.st_size} bytes, over the {MOST_BYTES} that are read")
    return Found(path, entry.path, stat.st_size, stat.st_mtime_ns)


def sha256(found: Found) -> str | Skipped:
    """The file's SHA-256, without a look at what it says."""
    raw = _bytes(found)
    return raw if isinstance(raw, Skipped) else hashlib.sha256(raw).hexdigest()


def read(found: Found) -> Content | Skipped:
    """The file's text; bytes that are no UTF-8 become replacement characters, and are counted."""
    raw = _bytes(found)
    if isinstance(raw, Skipped):
        return raw
    digest = hashlib.sha256(raw).hexdigest()
    if raw.startswith(UTF_16):
        return Content(digest, replace_invalid_unicode(raw.decode("utf-16", errors="replace")))
    if b"\0" in raw:
        return Skipped(found.path, "binary")
    text = raw.decode("utf-8-sig", errors="replace")
    return Content(digest, text, text.count("\ufffd") - raw.count("\ufffd".encode()))


def _bytes(found: Found) -> bytes | Skipped:
    try:
        with open(found.full, "rb", buffering=0) as file:
            return file.read(MOST_BYTES)
    except OSError as error:
        return Skipped(found.path, f"unreadable ({error.strerror})", passing=True)


def is_markdown(path: str) -> bool:
    return os.path.splitext(path)[1].lower() in MARKDOWN
