"""Find out whether a disk can be written, without writing to it."""

import errno
import os
from pathlib import Path

FULL_BELOW_BYTES = 64 * 1024  # SQLite makes files of 32 KiB for its shared memory

FEWEST_COUNTED_FILES = 1024
"""A file system that claims to hold fewer files than this in all has no fixed number of files. macOS reports
one file, and none free, for each exFAT volume, and for FAT16 the 512 entries of the root folder. A container
that has a folder of the host sees the host's numbers.
"""


def find_obstacle(folder: Path) -> OSError | None:
    """Return the error with which a write in the folder would fail; None if the file system reports no
    obstacle.

    The reasons are ENOSPC (no space, or no more files), EROFS, and any error that prevents the check itself,
    as when the folder is gone or the disk is broken.
    """
    try:
        stats = os.statvfs(folder)
    except OSError as error:
        return error
    if stats.f_flag & os.ST_RDONLY:
        return OSError(errno.EROFS, os.strerror(errno.EROFS))
    if stats.f_bavail * stats.f_frsize < FULL_BELOW_BYTES or free_files(stats) == 0:
        return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    return None


def free_files(stats: os.statvfs_result) -> int | None:
    """Return how many files may still be created on a disk, of which `os.statvfs` returned `stats`; None if
    its file system has no fixed number of files.
    """
    return None if stats.f_files < FEWEST_COUNTED_FILES else stats.f_favail
