"""Notice that a loaded model is no longer the one that its name stands for."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mlx_server.model_store.catalog.entry import BrokenModel, ModelEntry
from mlx_server.model_store.files.file_states import FileState, states_of
from mlx_server.model_store.layout import MANIFEST

LOOK_AGAIN_S = 1.0
"""How long the answer about a model holds. A look at its files takes long on a network's file system."""
SETTLED_S = 5.0
"""A folder is being written until nothing in it has changed for so long. `rsync` and `hf download` put one
whole file after the other in place, and all files are readable meanwhile, but do not belong together.
"""

WHERE_FILES_ARE = ("*", "*/*", ".cache/huggingface/download/**/*")
FILE_OF_A_MODEL = re.compile(r"\.(safetensors|gguf|json|jinja|model|txt)(\.\w+)?$|\.incomplete$")
"""A file of a model, or the one from which `rsync` or `hf download` makes it."""


class ModelChanges:
    """Decides whether a model's name stands for other files than when it was loaded: its folder or adapter
    was changed in place, or another model was installed under its name.

    Models are added, removed and renamed in `folders`. `catalog` returns all models and all broken models,
    and takes long. So, after it has shown a model to be unchanged, it is called for this model again only if
    a file of the model or one of `folders` has changed. `clock` returns seconds from any start, and
    `wall_clock` seconds since the epoch.
    """

    def __init__(
        self,
        catalog: Callable[[], tuple[list[ModelEntry], list[BrokenModel]]],
        folders: Sequence[Path] = (),
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._catalog, self._folders, self._clock, self._wall_clock = catalog, folders, clock, wall_clock
        self._unchanged: dict[str, tuple[str, _States]] = {}  # by name: the id of its files, and their states
        self._looks: dict[str, _Look] = {}

    def has_changed(self, entry: ModelEntry) -> bool:
        """Return True if the name of `entry`, a model that was loaded, now stands for other files. Return
        False if no usable model has the name any more (it was removed or is broken), and also while the
        model's files are being written or the models cannot be listed. The result may be LOOK_AGAIN_S
        seconds old. Any thread may call this.
        """
        last = self._looks.get(entry.name)
        if last and last.files_id == entry.files_id and self._clock() - last.ended_s < LOOK_AGAIN_S:
            return last.has_changed
        has_changed = self._look(entry)
        self._looks[entry.name] = _Look(entry.files_id, self._clock(), has_changed)
        return has_changed

    def _look(self, entry: ModelEntry) -> bool:
        state = entry.files_id, self._states(entry)
        if self._unchanged.get(entry.name) == state or any(map(self._is_being_written, _folders_of(entry))):
            return False
        try:
            entries, _ = self._catalog()
        except Exception:  # the catalog reads the user's folders, which may be in any state
            return False
        present = next((each for each in entries if each.name == entry.name), None)
        if present is not None and present.files_id != entry.files_id:
            return True
        self._unchanged[entry.name] = state
        return False

    def _states(self, entry: ModelEntry) -> _States:
        """Return values that change whenever a model is added, removed or renamed, or a file of this model or
        its adapter is written: the modification times of `folders`, and the states of the files.
        """
        return tuple(map(_modified_ns, self._folders)), tuple(map(_states_or_none, _folders_of(entry)))

    def _is_being_written(self, folder: Path) -> bool:
        """Return True if a program may still be writing the model in the folder, or the folder cannot be
        read. A folder with a manifest is never being written, because Vestal replaces it as a whole.
        """
        try:
            is_own = (folder / MANIFEST).exists()
            return not is_own and not is_settled(_changed_s(folder), self._wall_clock())
        except OSError:
            return True


@dataclass(frozen=True)
class _Look:
    """The result of a check whether the files of a loaded model have changed. `files_id` identifies the files
    from which the model was loaded.
    """

    files_id: str
    ended_s: float
    has_changed: bool


def is_settled(changed_s: float, now_s: float) -> bool:
    """Return whether a folder counts as complete at `now_s`: nothing in it has changed for SETTLED_S seconds.
    `changed_s` is the time of the last change. Both times are in seconds since the epoch.

    Return True also if `changed_s` is later than `now_s`, which happens if the clock was set back after the
    change. Otherwise, the folder would not count as complete before the clock has passed `changed_s` again.
    """
    return not 0 <= now_s - changed_s < SETTLED_S


def _changed_s(folder: Path) -> float:
    """Return the time, in seconds since the epoch, at which a file of the model in the folder was last
    written, or a file was last added, renamed or removed there; 0 if the folder does not exist. Raises
    OSError if the folder cannot be read.

    Files are selected by name: those of a model, and the hidden files to which `rsync` and `hf download`
    write first, but not, say, the log of a training. Their ctimes are compared, because the mtime of a
    copied file may be that of its original.
    """
    newest_s = 0.0
    below = (path for pattern in WHERE_FILES_ARE for path in folder.glob(pattern))
    for path in (folder, *(path for path in below if FILE_OF_A_MODEL.search(path.name))):
        try:
            newest_s = max(newest_s, os.stat(path).st_ctime)
        except FileNotFoundError:  # renamed meanwhile, which changes its folder; or a link to nothing
            continue
    return newest_s


def _folders_of(entry: ModelEntry) -> list[Path]:
    return [entry.path, *([entry.adapter.path] if entry.adapter else [])]


_States = tuple[tuple[int, ...], tuple[tuple[FileState, ...] | None, ...]]


def _modified_ns(folder: Path) -> int:
    try:
        return folder.stat().st_mtime_ns
    except OSError:
        return 0


def _states_or_none(folder: Path) -> tuple[FileState, ...] | None:
    try:
        return states_of(folder)
    except OSError:
        return None
