"""Find an installed program even if PATH lacks its folder, as it does under launchd."""

import os
import shutil
from collections.abc import Sequence

# Searched after PATH: launchd gives its jobs only /usr/bin:/bin:/usr/sbin:/sbin.
EXTRA_FOLDERS = (
    "/usr/local/bin",
    "/opt/homebrew/bin",
    "/usr/bin",
    "/Applications/Docker.app/Contents/Resources/bin",
)


def find_program(name: str, extra_folders: Sequence[str] = ()) -> str | None:
    """Return the full path of a program, or None if it is not installed."""
    folders = [os.environ.get("PATH", ""), *EXTRA_FOLDERS, *extra_folders]
    return shutil.which(name, path=os.pathsep.join(folders))
