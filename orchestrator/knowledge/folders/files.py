"""List and read the files of an agent's knowledge folder."""

from __future__ import annotations

import codecs
import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from orchestrator.unicode import is_valid_unicode, replace_invalid_unicode

MARKDOWN = {".md", ".markdown"}
TEXT_SUFFIXES = MARKDOWN | {".txt", ".rst", ".text"}
MAX_BYTES = 4 * 2**20
MAX_INT64 = 2**63 - 1  # the database stores no larger number; a file may be dated after the year 2262
UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


@dataclass(frozen=True)
class KnowledgeFile:
    """A text file in a knowledge folder. `path` is relative to the folder, with forward slashes; `full` is
    the path to open. `mtime_ns` is limited to -MAX_INT64..MAX_INT64, because the database stores no larger
    number.
    """

    path: str
    full: str
    size: int
    mtime_ns: int


@dataclass(frozen=True)
class Skipped:
    """A file, or a whole folder if `folder` is true, that is not read; `why` gives the reason. `path` is
    relative to the knowledge folder ("": the knowledge folder itself).

    If the reason is `temporary` (a permission, a disk that is not mounted), earlier knowledge of the file, or
    of the files in the folder, is kept. Otherwise `path` is a file that cannot be used, such as a binary
    file, a link or a file over the size limit, and earlier knowledge of it is deleted.
    """

    path: str
    why: str
    temporary: bool = False
    folder: bool = False

    def covers(self, path: str) -> bool:
        """Return True if `path` is this file, or lies in this folder."""
        return self.path in ("", path) or (self.folder and path.startswith(f"{self.path}/"))


@dataclass(frozen=True)
class Content:
    """A file's SHA-256 (hex), its text, and how many bytes were replaced because they are not UTF-8
    (`broken`).
    """

    sha256: str
    text: str
    broken: int = 0


@dataclass(frozen=True)
class Folders:
    """The knowledge folder of each agent. If the folder that contains the knowledge folders could not be
    listed, `unreadable` says why, and an agent that is not in `by_agent` may still have a folder. If
    `by_agent` is complete, `unreadable` is "".
    """

    by_agent: dict[str, Path]
    unreadable: str = ""


def folders(root: Path, named: dict[str, Path]) -> Folders:
    """Return the knowledge folders by agent: the folders in `root`, each with its agent's name, and those in
    `named`, which maps agents to folders elsewhere. If an agent has both, the one in `named` is used.

    A folder in `named` is returned even if it does not exist, because its disk may not be mounted. `root` may
    be missing.
    """
    own, unreadable = {}, ""
    try:
        own = {entry.name: entry for entry in sorted(root.iterdir()) if _is_knowledge(entry)}
    except FileNotFoundError:
        pass
    except OSError as error:
        unreadable = f"{root}: unreadable folder ({error.strerror})"
    return Folders({**own, **named}, unreadable)


def _is_knowledge(entry: Path) -> bool:
    """Return True if `entry` is a folder, or a link to one, that can be an agent's knowledge folder. Return
    False if its name begins with a dot or is not valid Unicode.

    Return True also if `entry` cannot be examined or is a link that leads nowhere, because its disk may not
    be mounted; `walk` then reports that the folder cannot be read. A link that leads nowhere and is named
    like a text file does not count as a folder.
    """
    if entry.name[0] == "." or not is_valid_unicode(entry.name):
        return False
    try:
        leads_nowhere = entry.is_symlink() and not entry.exists()
        return entry.is_dir() or (leads_nowhere and entry.suffix.lower() not in TEXT_SUFFIXES)
    except OSError:
        return True


def walk(folder: Path) -> Iterator[KnowledgeFile | Skipped]:
    """Yield every text file in the folder and its subfolders, and a Skipped for each text file or folder
    that is not read. Names that begin with a dot are ignored. Links are not followed, so there are no loops.
    """
    to_visit = [(str(folder), "")]
    while to_visit:
        full, path = to_visit.pop()
        try:
            with os.scandir(full) as listing:
                entries = sorted(listing, key=lambda entry: entry.name)
        except OSError as error:
            yield Skipped(
                replace_invalid_unicode(path),
                f"unreadable folder ({error.strerror})",
                temporary=True,
                folder=True,
            )
            continue
        below = []
        for entry in entries:
            name = f"{path}/{entry.name}" if path else entry.name
            if entry.name[0] == ".":
                continue
            try:
                is_folder = entry.is_dir(follow_symlinks=False)
                listed = None if is_folder else _listed(entry, name)
            except OSError as error:  # a network file system may have to ask its server about each entry
                why = f"unreadable ({error.strerror})"
                yield Skipped(replace_invalid_unicode(name), why, temporary=True, folder=True)
                continue
            if is_folder:
                below.append((entry.path, name))
            elif listed is not None:
                yield listed
        to_visit += reversed(below)


def _listed(entry: os.DirEntry[str], path: str) -> KnowledgeFile | Skipped | None:
    """Return the text file, or why it is not read; None if `entry` is no text file. Raises OSError if the
    entry cannot be examined.
    """
    suffix = os.path.splitext(entry.name)[1].lower()
    if suffix not in TEXT_SUFFIXES and (
        suffix or not entry.is_symlink()
    ):  # a link without a suffix may lead to a folder
        return None
    if not is_valid_unicode(path):
        return Skipped(replace_invalid_unicode(path), "its name is not UTF-8")
    if entry.is_symlink():
        return Skipped(path, "a link; put the file itself here, or name its folder in orchestrator.knowledge")
    if not entry.is_file(follow_symlinks=False):
        return Skipped(path, "not a regular file")
    stat = entry.stat(follow_symlinks=False)
    if stat.st_size > MAX_BYTES:
        return Skipped(path, f"{stat.st_size} bytes, over the limit of {MAX_BYTES}")
    mtime_ns = min(max(stat.st_mtime_ns, -MAX_INT64), MAX_INT64)
    return KnowledgeFile(path, entry.path, stat.st_size, mtime_ns)


def sha256(found: KnowledgeFile) -> str | Skipped:
    """Return the file's SHA-256 (hex), without decoding its text; a Skipped if the file cannot be read."""
    raw = _bytes(found)
    return raw if isinstance(raw, Skipped) else hashlib.sha256(raw).hexdigest()


def read(found: KnowledgeFile) -> Content | Skipped:
    """Return the file's content; a Skipped if the file is binary or cannot be read. Bytes that are not UTF-8
    become replacement characters and are counted.
    """
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


def _bytes(found: KnowledgeFile) -> bytes | Skipped:
    try:
        with open(found.full, "rb", buffering=0) as file:
            return file.read(MAX_BYTES)
    except OSError as error:
        return Skipped(found.path, f"unreadable ({error.strerror})", temporary=True)


def is_markdown(path: str) -> bool:
    """Return True if the path has a suffix of Markdown files."""
    return os.path.splitext(path)[1].lower() in MARKDOWN
