"""Decide, by digests of earlier reads, whether a file of weights must be read and compared before it is used.
Pure.

If a file has the same size, modification time and inode as at an earlier complete read, its content is
assumed to be the same. Reading 20 GB takes as long as loading them, so such a file is used at once and
verified later.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Stamp:
    """Identifies a file's content without reading it. `inode` changes if the file is replaced."""

    bytes: int
    mtime_ns: int
    inode: int


@dataclass(frozen=True)
class FileDigest:
    """The sha256 (hex) of a file's content, and the file's stamp (size, modification time and inode) when
    that content was read.

    `is_damaged` is True if the file was later found to have another content, although its stamp was the same.
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
    """The entry of one file in the manifest of an installed model. `bytes` and `mtime_ns` are None if the
    manifest lacks them.
    """

    sha256: str
    bytes: int | None = None
    mtime_ns: int | None = None


@dataclass(frozen=True)
class Judgement:
    """How a file must be checked. `sha256` is the digest that it must have; None if none is known.

    `before_use` is True if the file must be read and compared before it is used, and False if that may be
    done later.
    """

    sha256: str | None
    before_use: bool


def judge(stamp: Stamp, installed: Installed | None, earlier: FileDigest | None) -> Judgement:
    """Decide how a file with the stamp `stamp` (size, modification time and inode) must be checked.
    `installed` is the file's entry in its model's manifest, and `earlier` the digest that was recorded when
    the file was last read completely; either may be None. The file is unchanged since that read if `earlier`
    has the same stamp.

    With a manifest entry, the file is compared with the entry's digest. It is used at once and compared later
    if it has the size and modification time in the entry, or if it is unchanged since it was read and had
    this digest. In all other cases, and whenever an unchanged file was found damaged, it is compared before
    it is used.

    Without a manifest entry, a file that is unchanged since it was last read is compared with the earlier
    digest: before it is used if it was found damaged, otherwise later. A new or changed file is used without
    a comparison, because it is unknown which digest it must have.
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
    """Convert `value`, what the JSON of a model's manifest contains for one file, to an Installed. Return
    None if it contains no digest.
    """
    if not isinstance(value, Mapping) or not isinstance(sha256 := value.get("sha256"), str):
        return None
    return Installed(sha256.lower(), value.get("bytes"), value.get("mtime_ns"))


def digest_of(value: Any) -> FileDigest | None:
    """Return the digest that `FileDigest.as_json` has converted to `value`; None for any other value."""
    if not isinstance(value, Mapping) or not isinstance(sha256 := value.get("sha256"), str):
        return None
    size, mtime_ns, inode = (value.get(name) for name in ("bytes", "mtime_ns", "inode"))
    if not (isinstance(size, int) and isinstance(mtime_ns, int) and isinstance(inode, int)):
        return None
    return FileDigest(Stamp(size, mtime_ns, inode), sha256, value.get("damaged") is True)
