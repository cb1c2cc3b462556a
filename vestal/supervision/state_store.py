"""Stores for the state that must outlive a supervisor: open breakers, recent restarts, and stops by hand."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from vestal.best_effort.files import KeptFile


class StateStore(Protocol):
    """The interface of a store that keeps one small JSON record for each child, by the child's name."""

    def load(self, name: str) -> Mapping[str, Any] | None:
        """Return the record that was last saved for the child `name`; None if there is none."""

    def save(self, name: str, record: Mapping[str, Any]) -> OSError | None:
        """Save `record` as the record of the child `name`, in place of an earlier one. Return None, or the
        error if the record cannot be written now.

        The store remembers a record that it could not write. The method `keep`, which the supervisor calls
        once a second, tries again to write it.
        """

    def keep(self) -> None:
        """Write the records again if they could not be written, or were deleted or changed by another
        process.
        """


class MemoryStateStore:
    """Keeps the records in memory: for tests, and if nothing has to outlive the process."""

    def __init__(self) -> None:
        self._records: dict[str, dict[str, Any]] = {}

    def load(self, name: str) -> Mapping[str, Any] | None:
        """Return the record that was last saved for the child `name`; None if there is none."""
        return self._records.get(name)

    def save(self, name: str, record: Mapping[str, Any]) -> None:
        """Save `record` as the record of the child `name`, in place of an earlier one. In memory, this never
        fails.
        """
        self._records[name] = dict(record)

    def keep(self) -> None:
        """Do nothing, because there is no file that could be lost."""


class JsonStateStore:
    """Keeps all records in one JSON file, which only one process may write.

    The file is replaced atomically. A corrupt file is renamed to `.corrupt` and treated as missing, so that
    supervision continues without its saved state. `keep` writes the file again if it could not be written, or
    was deleted or changed.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = KeptFile(path, "state")
        self._records = self._read()

    def load(self, name: str) -> Mapping[str, Any] | None:
        """Return the record that was last saved for the child `name`; None if there is none, or if the file
        has something other than a JSON object in its place.
        """
        record = self._records.get(name)
        return record if isinstance(record, dict) else None

    def save(self, name: str, record: Mapping[str, Any]) -> OSError | None:
        """Save `record` as the record of the child `name`, in place of an earlier one. If this changes the
        record, replace the file atomically.

        Return None, or the error if the file cannot be written now; the next call of `keep` then tries again.
        """
        if self._records.get(name) == record:
            return None
        self._records[name] = dict(record)
        return self._file.write(json.dumps(self._records, indent=1))

    def keep(self) -> None:
        """Write the file again if it differs from the records of the last `save`."""
        self._file.keep()

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
