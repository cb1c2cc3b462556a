"""Digests of the code that a part of Vestal runs: its source files, the installed packages, and Python.

A digest covers names and contents but not file times, which change when a person switches between branches.
"""

import hashlib
import re
import sys
import sysconfig
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from vestal.config import Config

ROOT = Path(__file__).resolve().parents[2]
LOCK = ROOT / "requirements" / "host.lock"
EXTRA_LOCKS = {"mlx_server": ROOT / "requirements" / "vision.lock"}
"""The lock file of the optional packages of a part, which count only if they are installed."""
LOCKED_NAME = re.compile(r"^([A-Za-z0-9._-]+)==", re.MULTILINE)
DIGEST_VARIABLE = "VESTAL_DIGEST"
"""The environment variable with the digest of the code and settings that a process was started with."""

SOURCES = {
    "agent": ("vestal", "host_agent"),
    "watchdog": ("vestal", "host_agent"),
    "mlx_server": ("vestal", "mlx_server"),
    "orchestrator": ("vestal", "orchestrator"),
    "nightly": ("vestal", "orchestrator"),
    "ollama": (),
}
"""The folders with each part's source files. Ollama has none, since its code is not part of Vestal."""

_LENGTH = 16


def digest(part: str, settings: str) -> str:
    """Return the digest of a part of Vestal as `CODE.SETTINGS`. CODE is the result of `code_digest`, and
    SETTINGS is the hexadecimal hash of `settings`, the text of the part's settings. `part` is a key of
    SOURCES.
    """
    return f"{code_digest(part)}.{_text_digest(settings)}"


def all_settings(config: Config) -> str:
    """Return all settings as JSON, for the digest of the agent or the watchdog, which pass settings on to the
    processes that they start.

    The paths of the home and of the settings file are left out, because they are not settings themselves.
    """
    return config.model_dump_json(exclude={"home", "file"})


def code_digest(part: str) -> str:
    """Return the digest of a part's code on disk: its source files, the installed packages and the Python
    version.

    Return `-` for a part without sources of Vestal, such as Ollama.
    """
    folders = SOURCES[part]
    if not folders:
        return "-"
    packages = _packages(EXTRA_LOCKS.get(part))
    return _text_digest("\n".join([sys.version, packages, *map(_folder, folders)]))


def code_of(text: str) -> str:
    """Return CODE, the digest of the code alone, if `text` is a digest `CODE.SETTINGS` from `digest`. If
    `text` has no period, return all of it.
    """
    return text.partition(".")[0]


def _folder(name: str) -> str:
    hashed = hashlib.sha256()
    for path in sorted(_files(ROOT / name)):
        try:
            content = path.read_bytes()
        except OSError:  # it was deleted or is being replaced: the next call reads its new content
            continue
        hashed.update(f"{path.relative_to(ROOT)} {len(content)}\n".encode())
        hashed.update(content)
    return hashed.hexdigest()


def _files(folder: Path) -> Iterator[Path]:
    for path in folder.rglob("*"):
        if path.suffix not in (".pyc", "") and "__pycache__" not in path.parts and path.is_file():
            yield path


def _packages(extra_lock: Path | None = None) -> str:
    """Return the digest of the installed packages that the lock file names, and of those that `extra_lock`
    names, if given.

    The digest covers each package's file `RECORD`, which lists a hash of every installed file. A `RECORD` is
    read again only if its time or size has changed.
    """
    hashed = hashlib.sha256()
    for folder in sorted(_package_folders(extra_lock)):
        record = folder / "RECORD"
        try:
            status = record.stat()
            hashed.update(f"{folder.name} {_record(record, status.st_mtime_ns, status.st_size)}\n".encode())
        except OSError:
            hashed.update(f"{folder.name}\n".encode())
    return hashed.hexdigest()


@lru_cache(maxsize=512)
def _record(path: Path, mtime_ns: int, size: int) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _package_folders(extra_lock: Path | None) -> Iterator[Path]:
    names = _locked_names(LOCK)
    if names and extra_lock is not None:
        names |= _locked_names(extra_lock)
    for site in {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}:
        for folder in Path(site).glob("*.dist-info"):
            name = _normalized(folder.name.removesuffix(".dist-info").rpartition("-")[0])
            if not names or name in names:  # if LOCK cannot be read, the digest covers all packages
                yield folder


def _locked_names(lock: Path) -> frozenset[str]:
    """Return the normalized names of the packages in a lock file; an empty set if the file cannot be read."""
    try:
        return frozenset(_normalized(name) for name in LOCKED_NAME.findall(lock.read_text()))
    except OSError:
        return frozenset()


def _normalized(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _text_digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:_LENGTH]
