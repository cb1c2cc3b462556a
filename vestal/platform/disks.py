"""Find out whether a disk can be written, without writing to it."""

import errno
import os
from pathlib import Path

FULL_BELOW_BYTES = 64 * 1024


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
    has_files = not stats.f_files or stats.f_favail  # some file systems do not count files
    if stats.f_bavail * stats.f_frsize < FULL_BELOW_BYTES or not has_files:
        return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    return None
