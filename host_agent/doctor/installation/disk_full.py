"""The disk is full, or nearly: fetches, caches, logs and the journal need room."""

import os
from collections.abc import Iterator
from pathlib import Path

from host_agent.doctor.finding import Finding
from vestal.config import Config

NAME = "disk_full"
FAULT_BYTES = 512 * 1024**2
NOTE_BYTES = 4 * 1024**3
REMEDY = "free some: `vestal cache clear`, `vestal models remove NAME`, old images (`docker system prune`)"


def look(config: Config) -> Iterator[Finding]:
    """Where the home and the models are; once for each disk."""
    seen: set[int] = set()
    for folder in (config.home.root, config.models_dir, config.home.logs):
        existing = _existing(folder)
        device = existing.stat().st_dev
        if device not in seen:
            seen.add(device)
            yield examine(existing)


def examine(folder: Path) -> Finding:
    """What the file system there says."""
    told = os.statvfs(folder)
    inodes = told.f_favail if told.f_files else None  # some file systems do not count them
    return judge(folder, told.f_bavail * told.f_frsize, inodes)


def judge(folder: Path, free_bytes: int, free_files: int | None = None) -> Finding:
    """`free_bytes` and `free_files` are what a user may still take; None: as many files as there is room."""
    if free_files == 0:
        return Finding(
            NAME, "fault", f"the disk of {folder} can take no more files", REMEDY, "0 inodes are free"
        )
    free = f"{free_bytes / 1e9:.1f} GB" if free_bytes >= 1e9 else f"{free_bytes / 1e6:.0f} MB"
    if free_bytes < FAULT_BYTES:
        return Finding(NAME, "fault", f"only {free} are free on the disk of {folder}", REMEDY)
    if free_bytes < NOTE_BYTES:
        return Finding(
            NAME, "note", f"{free} are free on the disk of {folder}: too little for most models", REMEDY
        )
    return Finding(NAME, "ok", f"{free} are free on the disk of {folder}")


def _existing(folder: Path) -> Path:
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return folder
