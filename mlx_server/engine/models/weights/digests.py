"""Decide whether a file of weights may be used before it has been read through, by digests of earlier reads.
Pure.

A file whose size, modification time and inode are those of a file that was read through earlier is taken to
be that file. Reading 20 GB takes as long as loading them, so such a file is used at once and verified later.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Stamp:
    """What identifies a file's content without reading it. `inode` differs for a file that was replaced."""

    bytes: int
    mtime_ns: int
    inode: int


@dataclass(frozen=True)
class FileDigest:
    """The sha256 (hex) of a file's content, and the file's stamp at that time.

    `is_damaged` means that the file, with this stamp, was later found to have another content.
    """

    stamp: Stamp
    sha256: str
    is_damaged: bool = False

    def as_json(self) -> dict[str, Any]:
        """Return the digest as a JSON object."""
        damaged = {"damaged": True} if self.is_damaged else {}
        stamp = {"bytes": self.stamp.bytes, "mtime_ns": self.stamp.mtime_ns, "inode": self.stamp.inode}
        return {**stamp, "sha256": self.sha256, **damaged}


@dataclass(frozen=True)
class Installed:
    """What the manifest of an installed model says about a file. The stamp's values are None if absent."""

    sha256: str
    bytes: int | None = None
    mtime_ns: int | None = None


@dataclass(frozen=True)
class Judgement:
    """How a file is treated: `sha256` is the digest that it must have, None if none is known.

    `before_use`: it has to be read through and compared before it is used, else afterwards.
    """

    sha256: str | None
    before_use: bool


def judge(stamp: Stamp, installed: Installed | None, earlier: FileDigest | None) -> Judgement:
    """Return how a file with the given stamp is treated.

    `earlier` is the digest of an earlier read. A file that has changed since is compared before use with the
    manifest, if that has a digest. Without any digest there is nothing to compare.
    """
    if earlier is not None and earlier.stamp == stamp:
        if earlier.is_damaged:
            return Judgement(installed.sha256 if installed else earlier.sha256, before_use=True)
        if installed is None or installed.sha256 == earlier.sha256:
            return Judgement(earlier.sha256, before_use=False)
    if installed is None:
        return Judgement(None, before_use=False)
    is_as_installed = (installed.bytes, installed.mtime_ns) == (stamp.bytes, stamp.mtime_ns)
    return Judgement(installed.sha256, before_use=not is_as_installed)


def installed_of(value: Any) -> Installed | None:
    """Return the manifest's entry for a file, None if it has no digest."""
    if not isinstance(value, Mapping) or not isinstance(sha256 := value.get("sha256"), str):
        return None
    return Installed(sha256.lower(), value.get("bytes"), value.get("mtime_ns"))


def digest_of(value: Any) -> FileDigest | None:
    """Return the digest that `FileDigest.as_json` gave, None for any other value."""
    if not isinstance(value, Mapping) or not isinstance(sha256 := value.get("sha256"), str):
        return None
    size, mtime_ns, inode = (value.get(name) for name in ("bytes", "mtime_ns", "inode"))
    if not (isinstance(size, int) and isinstance(mtime_ns, int) and isinstance(inode, int)):
        return None
    return FileDigest(Stamp(size, mtime_ns, inode), sha256, value.get("damaged") is True)
