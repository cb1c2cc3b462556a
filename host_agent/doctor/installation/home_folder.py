"""Vestal's own folder cannot be written, belongs to another user, or holds a damaged journal."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from host_agent.doctor.evidence import journal_tail, process_table
from host_agent.doctor.finding import Diagnosis, Finding
from vestal.config import Config

NAME = "home"
OPEN_TO_OTHERS = 0o077


def diagnose(config: Config) -> Iterator[Finding]:
    """Check `$VESTAL_HOME` and the folders in it. Missing folders are not made, and no file remains."""
    home = config.home
    folders = dict.fromkeys((home.root, home.run, home.cache, home.logs, config.models_dir))
    found = [finding for folder in folders if (finding := check_folder(folder))]
    found += [*_check_token(home.token), *_check_journal(config)]
    missing = "" if home.root.exists() else " (it does not exist yet; `make up` makes it)"
    yield from found or [Finding(NAME, "ok", f"{home.root} can be written{missing}.")]


def check_folder(folder: Path) -> Finding | None:
    """Return a fault where `folder`, or the nearest folder above it that exists, cannot be written."""
    existing = folder
    while not os.path.lexists(existing) and existing != existing.parent:
        existing = existing.parent
    if not existing.is_dir():
        sentence = f"{existing} is in the way: it is not a folder."
        remedy = "Move it away, or set VESTAL_HOME to another place."
        return Finding(NAME, "fault", sentence, remedy, f"needed for {folder}")
    reason = _write_error(existing) if existing == folder else _permission_error(existing)
    if not reason:
        return None
    owner = process_table.user_name(existing.stat().st_uid)
    remedy = f"`sudo chown -R $(id -un) {existing}`, or set VESTAL_HOME to a folder of your own."
    return Finding(
        NAME, "fault", f"{existing} cannot be written ({reason}).", remedy, f"its owner is {owner}"
    )


def _write_error(folder: Path) -> str:
    """Return why no file can be made in `folder`. Only an attempt shows a read-only or full disk."""
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".doctor-"):
            return ""
    except OSError as error:
        return error.strerror or str(error)


def _permission_error(folder: Path) -> str:
    return "" if os.access(folder, os.W_OK | os.X_OK) else "no permission"


def _check_token(path: Path) -> Iterator[Finding]:
    try:
        mode = path.stat().st_mode
    except OSError:
        return
    if mode & OPEN_TO_OTHERS:
        sentence = f"{path} can be read by other users of this machine."
        yield Finding(NAME, "fault", sentence, f"`chmod 600 {path}`", f"its mode is {mode & 0o777:o}")


def _check_journal(config: Config) -> Iterator[Finding]:
    if damage := journal_tail.damage(config.home):
        remedy = "`vestal down`, then `vestal up`: the agent renames it and starts a new one."
        evidence = f"{config.home.journal_db}: {damage}"
        yield Finding(NAME, "fault", "The agent's journal is damaged.", remedy, evidence)


DIAGNOSIS = Diagnosis(NAME, diagnose)
