"""Read, write, keep and remove PID files, which hold the identity of a process as JSON.

A PID file also names the folder that it was written in, so that a copy of this folder is recognized: the
processes in its PID files belong to the original.
"""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

from vestal.best_effort.files import KeptFile, make_private_folder, write_file
from vestal.supervision.processes.identity import ProcessIdentity

_MAX_PID = 2**31 - 1  # what the system calls take


def read_pid_file(path: Path) -> ProcessIdentity | None:
    """Return the identity in a PID file. Return None if there is no file, if it is malformed, or if it is a
    copy: the file names the folder in which it was written, and that folder is another one than the file's
    and still exists.

    If the named folder is gone, it was moved with its files (perhaps to another disk) or restored from a
    backup, so the files still name their own processes. Earlier versions wrote no folder; their files are
    never taken for copies.
    """
    try:
        data: Any = json.loads(path.read_text())
        identity = ProcessIdentity(int(data["pid"]), float(data["start_time"]), str(data.get("boot", "")))
        is_copy = "folder" in data and _is_copy(path.parent, data["folder"])
    except (OSError, ValueError, OverflowError, TypeError, KeyError, AttributeError):
        return None
    return identity if 0 < identity.pid <= _MAX_PID and not is_copy else None


def write_pid_file(path: Path, identity: ProcessIdentity) -> None:
    """Replace the file atomically: a reader finds the old one or the new one. Raises OSError if that
    fails.
    """
    write_file(path, _text_of(identity, path.parent))


class KeptPidFile(KeptFile):
    """The PID file of a process that runs. `keep` writes the file again if it could not be written, or is
    gone.

    Without the file, the next supervisor has to search for the process.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path, "pid_file")
        self._identity: ProcessIdentity | None = None

    def write_identity(self, identity: ProcessIdentity) -> OSError | None:
        """Replace the content of the file by `identity`. Return None, or the error if the file cannot be
        written now: it then stays as it was, and the next call of `keep` tries again.
        """
        self._identity = identity
        return self.write(_text_of(identity, self.path.parent))

    def keep(self) -> bool:
        """Write the file again if it is missing, if its text was changed, or if its folder was replaced by
        another one. Return True if it was written.
        """
        if self._text is not None and self._identity is not None:
            self._text = _text_of(self._identity, self.path.parent)
        return super().keep()

    def remove_if_of(self, pid: int) -> None:
        """Remove the file if it names `pid`. In any case, stop rewriting it."""
        found = read_pid_file(self.path)
        if found is not None and found.pid == pid:
            self.remove()
        self.forget()


def _text_of(identity: ProcessIdentity, folder: Path) -> str:
    """Make the text of a PID file in `folder` for the process `identity`, and return it. Create `folder`
    first if it is missing. The text also identifies `folder`, unless the folder cannot be created or
    examined.
    """
    fields: dict[str, object] = dict(identity.__dict__)
    with contextlib.suppress(OSError):
        make_private_folder(folder)
        device, inode = _device_and_inode(folder)
        fields["folder"] = {"path": str(folder.absolute()), "device": device, "inode": inode}
    return json.dumps(fields)


def _is_copy(folder: Path, written_in: dict[str, Any]) -> bool:
    """Return whether `folder` is another folder than the one that `written_in` describes, and the described
    folder still exists. `written_in` has the path, device and inode that a PID file holds.

    The inode is compared because a folder keeps it when it is moved on the same disk. If a process has since
    made a new folder at the old path, that folder has another inode, so it is not the described one.
    """
    described = written_in["device"], written_in["inode"]
    if _device_and_inode(folder) == described:
        return False
    try:
        return _device_and_inode(Path(written_in["path"])) == described
    except OSError:
        return False


def _device_and_inode(folder: Path) -> tuple[int, int]:
    found = os.stat(folder)
    return found.st_dev, found.st_ino
