"""Take over the files that earlier gateways left, of answers that ended and of unfinished answers."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field, replace
from typing import Any

from mlx_server.gateway.answer_log.file_names import FileName
from mlx_server.gateway.answer_log.folder import AnswerFolder, FoundFile
from mlx_server.gateway.answer_log.records import (
    FORMAT,
    OLDEST_FORMAT,
    Accepted,
    Ended,
    Left,
    TakenUp,
    read_records,
)

START_GRACE_S = 60.0
"""How long every ended or suspended answer is kept after a start. Without this grace period, a clock that is
wrong at a start could delete answers that clients still come back for."""


@dataclass(frozen=True)
class EarlierFile:
    """A file that is taken over from an earlier gateway. `size_bytes` counts only the records that are
    complete; `written_s` is when the file was last written, in seconds since 1970; `suspended` is True if the
    answer is unfinished because its client left.
    """

    name: FileName
    size_bytes: int
    written_s: float
    suspended: bool = False

    def since_s(self, now: float, wall: float, keep_s: float) -> float:
        """Return the monotonic time, in seconds, from which the answer's age counts. For an answer that ended
        or was suspended, this is when its file was last written, and the answer expires `keep_s` seconds
        later. For an answer that was still running, which this gateway finishes, it is `now`.

        `now` is the monotonic time, and `wall` is the same moment in seconds since 1970, as in `written_s`.
        So that a wrong clock deletes nothing at once, the result is at most `keep_s` - START_GRACE_S seconds
        before `now`, and never after `now`.
        """
        if not (self.name.ended or self.suspended):
            return now
        return now - min(max(0.0, wall - self.written_s), max(0.0, keep_s - START_GRACE_S))


@dataclass
class Found:
    """The usable files of earlier gateways, in the order in which their answers were accepted.

    `expired_ids` are the ids of answers that earlier gateways have deleted from the log. `notes` are the
    events to emit about files that are skipped or cut, each with its name, its cause and its fields.
    `last_number` is the highest number (`FileName.number`) of all files, including skipped ones; 0 if there
    are none. `error` is set if the folder cannot be used now.
    """

    files: list[EarlierFile] = field(default_factory=list)
    expired_ids: list[str] = field(default_factory=list)
    notes: list[tuple[str, str, dict[str, Any]]] = field(default_factory=list)
    last_number: int = 0
    error: OSError | None = None


def take_over(folder: AnswerFolder) -> Found:
    """Lock the folder and return the usable files in it. Raises LogInUse if another process uses the folder.
    An OSError is not raised, but stored in `Found.error`.
    """
    found = Found()
    try:
        folder.make()
        folder.lock()
        files = folder.files()
    except OSError as error:
        found.error = error
        return found
    found.expired_ids = folder.expired_ids()
    found.last_number = max((file.name.number for file in files), default=0)
    newer = [file for file in files if file.name.format > FORMAT]
    older = [file for file in files if file.name.format < OLDEST_FORMAT]
    if newer:
        cause = "Files of a newer version are left as they are, and not read."
        found.notes.append(("answer_log_entry_skipped", cause, {"files": len(newer)}))
    if older:
        cause = "Files of an older version, which this one cannot read, are deleted."
        found.notes.append(("answer_log_entry_skipped", cause, {"files": len(older)}))
    for file in older:
        _remove(folder, file)
    for file in files:
        is_readable = OLDEST_FORMAT <= file.name.format <= FORMAT
        if is_readable and (taken := _take(folder, file, found)) is not None:
            found.files.append(taken)
    return found


def clear(folder: AnswerFolder) -> None:
    """Delete the answers' files in a folder that is not used any more. Files of a newer version of the
    gateway, and files that cannot be deleted, remain. Raises LogInUse if another process uses the folder.
    """
    if not folder.path.is_dir():
        return
    try:
        folder.lock()
        for file in folder.files():
            if file.name.format <= FORMAT:
                _remove(folder, file)
        folder.write_expired_ids([])
    except OSError:  # files that cannot be deleted at this start are deleted at the next one
        return
    finally:
        folder.unlock()


def _take(folder: AnswerFolder, file: FoundFile, found: Found) -> EarlierFile | None:
    """Return `file` as an EarlierFile, or None if its answer cannot be used. The size of an unfinished
    answer's file includes only its complete records. If a file is skipped or loses records, a note about it
    is added to `found`.
    """
    taken = EarlierFile(file.name, file.size_bytes, file.written_s)
    if file.name.ended:
        return taken
    try:
        records, whole_bytes = read_records(folder.read(file.name))
    except OSError as error:
        cause = f"The file cannot be read ({error.strerror or error})."
        found.notes.append(("answer_log_entry_skipped", cause, {"id": file.name.id}))
        return None
    if not records or not isinstance(records[0], Accepted) or records[0].id != file.name.id:
        cause = "The file does not begin with a whole request, and is deleted."
        found.notes.append(("answer_log_entry_skipped", cause, {"id": file.name.id}))
        _remove(folder, file)
        return None
    if whole_bytes < file.size_bytes:
        cause = "The last record is cut off or damaged: the answer continues before it."
        dropped = file.size_bytes - whole_bytes
        found.notes.append(("answer_log_tail_dropped", cause, {"id": file.name.id, "bytes": dropped}))
    if isinstance(records[-1], Ended):
        with contextlib.suppress(OSError):  # else it counts as unfinished, and its reader sees its end
            folder.rename(file.name, file.name.as_ended())
            return replace(taken, name=file.name.as_ended())
    last = next((record for record in reversed(records) if isinstance(record, Left | TakenUp)), None)
    return replace(taken, size_bytes=whole_bytes, suspended=isinstance(last, Left))


def _remove(folder: AnswerFolder, file: FoundFile) -> None:
    with contextlib.suppress(OSError):
        folder.remove(file.name)
