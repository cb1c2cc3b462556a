"""Vestal's own folder cannot be written, belongs to another user, or holds a damaged journal."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from host_agent.doctor.evidence import journal_tail, process_table
from host_agent.doctor.finding import Finding
from vestal.config import Config

NAME = "home"
OPEN_TO_OTHERS = 0o077


def look(config: Config) -> Iterator[Finding]:
    """`$VESTAL_HOME` and the folders in it; nothing is made that is not there, and nothing stays."""
    home = config.home
    folders = dict.fromkeys((home.root, home.run, home.cache, home.logs, config.models_dir))
    found = [finding for folder in folders if (finding := judge(folder))]
    found += [*_token(home.token), *_journal(config)]
    state = "" if home.root.exists() else " (it is not there yet; `make up` makes it)"
    yield from found or [Finding(NAME, "ok", f"{home.root} can be written{state}")]


def judge(folder: Path) -> Finding | None:
    """A folder that is not there is made where the one above can be written."""
    existing = folder
    while not os.path.lexists(existing) and existing != existing.parent:
        existing = existing.parent
    if not existing.is_dir():
        remedy = "move it away, or set VESTAL_HOME to another place"
        return Finding(
            NAME, "fault", f"{existing} is in the way: it is not a folder", remedy, f"needed for {folder}"
        )
    why = _unwritable(existing) if existing == folder else _closed(existing)
    if not why:
        return None
    owner = process_table.user(existing.stat().st_uid)
    remedy = f"`sudo chown -R $(id -un) {existing}`, or set VESTAL_HOME to a place that is yours"
    return Finding(NAME, "fault", f"{existing} cannot be written ({why})", remedy, f"its owner is {owner}")


def _unwritable(folder: Path) -> str:
    """Tried, for a disk that is mounted read-only or full says so only then."""
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".doctor-"):
            return ""
    except OSError as error:
        return error.strerror or str(error)


def _closed(folder: Path) -> str:
    return "" if os.access(folder, os.W_OK | os.X_OK) else "no permission"


def _token(path: Path) -> Iterator[Finding]:
    try:
        mode = path.stat().st_mode
    except OSError:
        return
    if mode & OPEN_TO_OTHERS:
        sentence = f"{path} can be read by other users of this machine"
        yield Finding(NAME, "fault", sentence, f"`chmod 600 {path}`", f"its mode is {mode & 0o777:o}")


def _journal(config: Config) -> Iterator[Finding]:
    if damage := journal_tail.damage(config.home):
        remedy = "`vestal down` and `vestal up`: the agent puts it aside and begins a new one"
        evidence = f"{config.home.journal_db}: {damage}"
        yield Finding(NAME, "fault", "the agent's journal is damaged", remedy, evidence)
