"""Read blocks from disk on any thread, before the MLX thread moves them to RAM."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from mlx_server.engine.log import log_event
from mlx_server.engine.prompt_cache.blob import Corrupt
from mlx_server.engine.prompt_cache.entry import Entry, Value, unpack
from mlx_server.engine.prompt_cache.prefix_match import Tags
from vestal.best_effort.files import EXHAUSTED


@dataclass
class ReadAhead:
    """The entries that were read but are not in the RAM tier yet, by key, and the keys that could not be
    read.

    `restored` were read for a request, `preloaded` before any request needed them. The files of `missing` do
    not exist; those of `broken` are unreadable or damaged.
    """

    restored: dict[str, Entry] = field(default_factory=dict)
    preloaded: dict[str, Entry] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)


class BlockReader:
    """Reads and checks the files of blocks and snapshots, and holds their contents until the MLX thread takes
    them. `read_file` returns the bytes of a key's file, and raises OSError if it cannot be read.
    """

    def __init__(self, read_file: Callable[[str], bytes]) -> None:
        self._read_file = read_file
        self._lock = threading.Lock()
        self._ahead = ReadAhead()

    def get(self, key: str, tags: Tags, missing: list[str], broken: list[str]) -> Value | None:
        """Return the block or snapshot that is stored under `key`, which a request needs. It is read from its
        file, unless it has already been read since the last call of `take`. It is kept, together with `tags`,
        until the next call of `take`, which returns all that was read.

        The file must contain the model identity that is in `tags`; else it counts as damaged. If the file
        does not exist, append the key to `missing`; if it is unreadable or damaged, append it to `broken`.
        Return None in both cases, and also if the process has no descriptors or memory left, which says
        nothing about the file.
        """
        with self._lock:  # it may just have been read
            entry = self._ahead.restored.get(key) or self._ahead.preloaded.get(key)
        if entry is None:
            entry = self._read(key, tags, missing, broken)
            if entry is None:
                return None
            with self._lock:
                self._ahead.restored[key] = entry
        return entry.value

    def preload(self, keys: list[str], tags: Tags) -> None:
        """Read the files of `keys` on the calling thread, and hold the results until the next call of `take`.
        In the ReadAhead that `take` returns, `preloaded` has the blocks and snapshots that were read, each in
        an Entry with `tags`; `missing` has the keys whose files do not exist, and `broken` those whose files
        are unreadable or damaged. A file counts as damaged if it does not contain the model identity that is
        in `tags`.
        """
        for key in keys:
            missing, broken = list[str](), list[str]()
            entry = self._read(key, tags, missing, broken)
            with self._lock:
                if entry is not None:
                    self._ahead.preloaded[key] = entry
                self._ahead.missing += missing
                self._ahead.broken += broken

    def take(self) -> ReadAhead:
        """Return everything that was read since the last call."""
        with self._lock:
            taken, self._ahead = self._ahead, ReadAhead()
        return taken

    def _read(self, key: str, tags: Tags, missing: list[str], broken: list[str]) -> Entry | None:
        try:
            return Entry(unpack(key, self._read_file(key), tags["identity"]), tags)
        except FileNotFoundError:  # deleted by another engine or by `vestal cache clear`
            missing.append(key)
        except (OSError, Corrupt) as error:
            if isinstance(error, OSError) and error.errno in EXHAUSTED:  # says nothing about the file
                log_event("cache_block_not_read", cause=str(error), key=key)
                return None
            log_event("cache_block_dropped", cause=str(error), key=key)
            broken.append(key)
        return None
