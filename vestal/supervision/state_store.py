"""Where the supervisor's memory outlives it."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol


class StateStore(Protocol):
    """Small records of JSON-able data, one for each child."""

    def load(self, name: str) -> Mapping[str, Any] | None:
        """The record saved last; None where there is none."""

    def save(self, name: str, record: Mapping[str, Any]) -> None:
        """Keeps the record. May raise OSError."""


class MemoryStateStore:
    """Forgets with its process. For tests, and where nothing needs to outlive it."""

    def __init__(self) -> None:
        self._records: dict[str, dict[str, Any]] = {}

    def load(self, name: str) -> Mapping[str, Any] | None:
        return self._records.get(name)

    def save(self, name: str, record: Mapping[str, Any]) -> None:
        self._records[name] = dict(record)


class JsonStateStore:
    """One JSON file for all children, replaced whole, by one writer.

    A corrupt file is put aside as `.corrupt` and counts as none: supervision goes on without its memory.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._records = self._read()

    def load(self, name: str) -> Mapping[str, Any] | None:
        record = self._records.get(name)
        return record if isinstance(record, dict) else None

    def save(self, name: str, record: Mapping[str, Any]) -> None:
        if self._records.get(name) == record:
            return
        self._records[name] = dict(record)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        fresh = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        fresh.write_text(json.dumps(self._records, indent=1))
        os.replace(fresh, self._path)

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
