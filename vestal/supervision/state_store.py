"""Stores for what must outlive a supervisor: open breakers, recent restarts, and stops by hand."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol


class StateStore(Protocol):
    """Keeps one small JSON record for each name."""

    def load(self, name: str) -> Mapping[str, Any] | None:
        """Return the record that was saved last; None if there is none."""

    def save(self, name: str, record: Mapping[str, Any]) -> None:
        """Replace the record. May raise OSError."""


class MemoryStateStore:
    """Keeps the records in memory: for tests, and where nothing has to outlive the process."""

    def __init__(self) -> None:
        self._records: dict[str, dict[str, Any]] = {}

    def load(self, name: str) -> Mapping[str, Any] | None:
        """Return the record that was saved last; None if there is none."""
        return self._records.get(name)

    def save(self, name: str, record: Mapping[str, Any]) -> None:
        """Replace the record."""
        self._records[name] = dict(record)


class JsonStateStore:
    """Keeps all records in one JSON file, which only one process may write.

    The file is replaced atomically. A corrupt file is renamed to `.corrupt` and treated as missing, so that
    supervision continues without its saved state.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._records = self._read()

    def load(self, name: str) -> Mapping[str, Any] | None:
        """Return the record that was saved last; None if there is none."""
        record = self._records.get(name)
        return record if isinstance(record, dict) else None

    def save(self, name: str, record: Mapping[str, Any]) -> None:
        """Replace the record, and the file if the record differs. May raise OSError."""
        if self._records.get(name) == record:
            return
        self._records[name] = dict(record)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        temporary.write_text(json.dumps(self._records, indent=1))
        os.replace(temporary, self._path)

    def _read(self) -> dict[str, Any]:
        try:
            records = json.loads(self._path.read_text())
            if isinstance(records, dict):
                return records
        except FileNotFoundError:
            return {}
        except (OSError, ValueError):
            pass
        with contextlib.suppress(OSError):
            os.replace(self._path, self._path.with_name(self._path.name + ".corrupt"))
        return {}
