"""Diagnose a full or nearly full disk, because models, caches, logs and the journal need space."""

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from host_agent.agent import single_instance
from host_agent.agent_client import AgentClient
from host_agent.doctor.finding import Diagnosis, Finding
from host_agent.errors import HostAgentError
from host_agent.services.disk_report import ASK_DOCTOR
from vestal.best_effort.disks import find_obstacle, free_files
from vestal.config import Config, ConfigError
from vestal.config.units import format_size

NAME = "disk_full"
FAULT_BELOW_BYTES = 512 * 1024**2
NOTE_BELOW_BYTES = 4 * 1024**3
FULL = (errno.ENOSPC, errno.EDQUOT)
BROKEN = (errno.EROFS, errno.EIO)
REPAIR = "Find out why (`dmesg`, `mount`): a failing disk is often made read-only. Then repair or remount it."
REMEDY = "Free some: `vestal cache clear`, `vestal models remove NAME`, old images (`docker system prune`)."


def diagnose(config: Config) -> Iterator[Finding]:
    """Yield findings on the free space of the disks, and a fault if the host agent reports files that it or
    the MLX server cannot write.
    """
    yield from check_disks(config)
    yield from _failed_writes(config)


def check_disks(config: Config) -> Iterator[Finding]:
    """Yield a finding on the free space of each disk that holds the home folder, the models or the logs."""
    checked_devices: set[int] = set()
    for folder in (config.home.root, config.models_dir, config.home.logs):
        existing = _nearest_existing(folder)
        device = existing.stat().st_dev
        if device not in checked_devices:
            checked_devices.add(device)
            yield check_disk(existing)


def _failed_writes(config: Config) -> Iterator[Finding]:
    """Ask the host agent whether any of its own or the MLX server's files cannot be written, and yield a
    fault if so.

    Yield nothing if no agent answers, because other diagnoses report that.
    """
    if single_instance.running(config.home) is None:
        return
    with contextlib.suppress(HostAgentError, ConfigError):
        disk = AgentClient(config).get("/status")["host"].get("disk", {})
        if disk.get("message"):
            sentence = str(disk["message"]).removesuffix(ASK_DOCTOR).rstrip()
            obstacle = find_obstacle(config.home.root)
            remedy = remedy_for(obstacle) if obstacle else "The findings of `home`, if any, say why."
            yield Finding(NAME, "fault", sentence, remedy or REPAIR)


def remedy_for(error: OSError) -> str:
    """Return the remedy for a full or broken disk; empty if `error` has another cause."""
    if error.errno in FULL:
        return REMEDY
    return REPAIR if error.errno in BROKEN else ""


def check_disk(folder: Path) -> Finding:
    """Read the free space of the disk that holds `folder`, and return a finding that says whether it is
    enough.
    """
    stats = os.statvfs(folder)
    return assess_disk(folder, stats.f_bavail * stats.f_frsize, free_files(stats))


def assess_disk(folder: Path, free_bytes: int, files_left: int | None = None) -> Finding:
    """Return a finding that says whether the disk of `folder` has enough free space.

    `files_left` is the number of files that may still be created; None means that there is no limit.
    """
    if files_left == 0:
        sentence = f"The disk of {folder} cannot hold more files."
        return Finding(NAME, "fault", sentence, REMEDY, "0 inodes are free")
    free = format_size(free_bytes)
    if free_bytes < FAULT_BELOW_BYTES:
        return Finding(NAME, "fault", f"Only {free} are free on the disk of {folder}.", REMEDY)
    if free_bytes < NOTE_BELOW_BYTES:
        sentence = f"{free} are free on the disk of {folder}: too little for most models."
        return Finding(NAME, "note", sentence, REMEDY)
    return Finding(NAME, "ok", f"{free} are free on the disk of {folder}.")


def _nearest_existing(folder: Path) -> Path:
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return folder


DIAGNOSIS = Diagnosis(NAME, diagnose)
