"""The files that a service manager reads: property lists for launchd, unit files for systemd."""

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class UnitFile:
    """One file of a job. With systemd the job `recover` has two: a service and its timer."""

    job: str
    path: Path
    text: str


def is_current(file: UnitFile) -> bool:
    """Return True if the file exists with exactly this text."""
    try:
        return file.path.read_text() == file.text
    except OSError:
        return False


def write(file: UnitFile, mode: int) -> None:
    """Write the file atomically; it never has wider permissions than `mode`."""
    file.path.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.path.with_name(f".{file.path.name}")
    temporary.unlink(missing_ok=True)
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w") as output:
        os.fchmod(output.fileno(), mode)
        output.write(file.text)
    temporary.replace(file.path)
