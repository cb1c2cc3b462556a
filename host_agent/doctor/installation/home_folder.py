"""Diagnose a Vestal home folder that cannot be written or belongs to another user, an exposed token, and a
damaged journal.
"""

import errno
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from host_agent.doctor.evidence import process_table
from host_agent.doctor.finding import Diagnosis, Finding
from host_agent.doctor.installation import disk_full
from host_agent.journal import damaged_copies, find_damage
from vestal.best_effort.disks import find_obstacle
from vestal.config import Config

NAME = "home"
OPEN_TO_OTHERS = 0o077


def diagnose(config: Config) -> Iterator[Finding]:
    """Yield a fault for each folder of Vestal that cannot be written, for a token file that other users can
    read, and for a damaged journal, and a note if copies of damaged journals are kept.

    If there is none of these, yield one finding `ok`. Missing folders are not created, and no test file is
    left behind.
    """
    home = config.home
    found = [*check_folders(config), *_check_token(home.token), *_check_journal(config)]
    missing = "" if home.root.exists() else " (it does not exist yet; `make up` makes it)"
    yield from found or [Finding(NAME, "ok", f"{home.root} can be written{missing}.")]


def check_folders(config: Config) -> Iterator[Finding]:
    """Yield a fault for each of Vestal's folders that cannot be written."""
    home = config.home
    folders = dict.fromkeys((home.root, home.run, home.cache, home.logs, config.models_dir))
    found = [finding for folder in folders if (finding := check_folder(folder))]
    # A broken disk is reported once, even if several folders are on it.
    yield from {finding.sentence: finding for finding in reversed(found)}.values()


def check_folder(folder: Path) -> Finding | None:
    """Return a fault if `folder`, or else its nearest existing parent, cannot be written; None if it can."""
    existing = folder
    while not os.path.lexists(existing) and existing != existing.parent:
        existing = existing.parent
    if not existing.is_dir():
        sentence = f"{existing} is in the way: it is not a folder."
        remedy = "Move it away, or set VESTAL_HOME to another place."
        return Finding(NAME, "fault", sentence, remedy, f"needed for {folder}")
    error = _write_error(existing) if existing == folder else _permission_error(existing)
    return None if error is None else assess_write_error(existing, error)


def assess_write_error(folder: Path, error: OSError) -> Finding:
    """Return the fault for a folder that cannot be written, with the remedy for the cause `error`."""
    if remedy := disk_full.remedy_for(error):
        sentence = f"The disk of {_mount_point(folder)} cannot be written ({error.strerror})."
        return Finding(NAME, "fault", sentence, remedy)
    sentence = f"{folder} cannot be written ({error.strerror or error})."
    owner = process_table.user_name(folder.stat().st_uid)
    remedy = f"`sudo chown -R $(id -un) {folder}`, or set VESTAL_HOME to a folder of your own."
    return Finding(NAME, "fault", sentence, remedy, f"its owner is {owner}")


def _mount_point(folder: Path) -> Path:
    while not folder.is_mount() and folder != folder.parent:
        folder = folder.parent
    return folder


def _write_error(folder: Path) -> OSError | None:
    """Return the error of an attempt to write a file in `folder`, or None if that succeeds.

    Only an attempt shows whether the disk is read-only or full.
    """
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".doctor-") as file:
            file.write(b"x")
            file.flush()
    except OSError as error:
        return error
    return None


def _permission_error(folder: Path) -> OSError | None:
    if os.access(folder, os.W_OK | os.X_OK):
        return None
    return find_obstacle(folder) or PermissionError(errno.EACCES, "no permission")


def _check_token(path: Path) -> Iterator[Finding]:
    try:
        mode = path.stat().st_mode
    except OSError:
        return
    if mode & OPEN_TO_OTHERS:
        sentence = f"{path} can be read by other users of this machine."
        yield Finding(NAME, "fault", sentence, f"`chmod 600 {path}`", f"its mode is {mode & 0o777:o}")


def _check_journal(config: Config) -> Iterator[Finding]:
    path = config.home.journal_db
    if damage := find_damage(path):
        remedy = "`vestal down`, then `vestal up`: the agent renames it and begins a new one."
        yield Finding(NAME, "fault", "The agent's journal is damaged.", remedy, f"{path}: {damage}")
    if copies := damaged_copies(path):
        sentence = f"The agent's journal was damaged and replaced by an empty one ({len(copies)} kept)."
        yield Finding(NAME, "note", sentence, f"Run `rm {path}.damaged-*` when you no longer need them.")


DIAGNOSIS = Diagnosis(NAME, diagnose)
