"""The model store on disk. Each model has a folder with its files and a manifest; the folder is added or
removed by one rename.

<store>/smollm2__135m/        config.json, model.safetensors, tokenizer.json, ..., vestal-model.json
<store>/.staging-XXXX/        a model being staged; the next fetch deletes it if its process died
<store>/.changing-XXXX/       a model being made or removed; the next change deletes what is left of it
<store>/.*-XXXX/model/        the new model, until it is complete and takes its place
<store>/.*-XXXX/replaced/     an installed model while another one takes its place
<store>/.lock                 locked (flock) by the process that stages a model, for as long as that takes
<store>                       locked (flock) for the moment in which a model's folder is added or removed
<store>/.changes.lock         locked instead of the store's folder if that cannot be locked (NFS)

On a file system without locks, all goes on without them; then temporary folders are deleted once they are a
day old, because it is unknown which processes live.

Downloads from the hub are not staged here, but in the hub's cache, whose files have locks of their own.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mlx_server.model_store import blobs, disk
from mlx_server.model_store.errors import DAMAGE
from vestal.platform.exhaustion import raise_if_exhausted
from vestal.platform.file_lock import try_lock, wait_for_folder_lock, wait_for_lock

MANIFEST = "vestal-model.json"
_STAGING, _CHANGING = ".staging-", ".changing-"
_STAGED, _REPLACED = "model", "replaced"
_FETCH_LOCK, _CHANGES_LOCK = ".lock", ".changes.lock"
_SURELY_ABANDONED_S = 86_400.0


def folder_name(name: str) -> str:
    """Return the name of a model's folder: `smollm2:135m` → `smollm2__135m`, `org/model` → `org--model`."""
    return name.replace("/", "--").replace(":", "__")


def model_name(folder: str) -> str:
    """Return the name of the model in a folder: `qwen3__4b` → `qwen3:4b`, `My-Model` → `My-Model`."""
    return folder.replace("__", ":", 1)


def installed_path(store: Path, name: str) -> Path:
    """Return the folder in which the model `name` is, or would be, installed."""
    return store / folder_name(name)


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return the manifest that was written when the model in `folder` was installed; empty if it is missing
    or unreadable. Raises OSError if no descriptor or memory is left to read it.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_text("utf-8"))
    except DAMAGE as error:
        raise_if_exhausted(error)
        return {}
    return manifest if isinstance(manifest, dict) else {}


def move_into_store(staged: Path, store: Path, name: str, manifest: dict[str, Any]) -> Path:
    """Write the manifest into the finished folder `staged`, rename it to the model's folder, and return that.

    `staged` must be the folder `model` in a staging folder of the store. A model of the same name is replaced
    as a whole. Raises ModelStoreError (`store_unwritable` or `disk_full`) if the store cannot be written.
    """
    with disk.write_errors_explained(name, disk.MARGIN_BYTES, store):
        write_manifest(staged, name, manifest)
        with _changes_locked(store):
            return replace(staged, store, name)


def write_manifest(staged: Path, name: str, manifest: dict[str, Any]) -> None:
    """Write the manifest of model `name` into the folder `staged`."""
    (staged / MANIFEST).write_text(manifest_text(name, manifest), "utf-8")


def manifest_text(name: str, manifest: dict[str, Any]) -> str:
    """Return the content of the manifest of the model `name`, which is JSON in ASCII."""
    return json.dumps({"name": name, **manifest}, indent=1)


def replace(staged: Path, store: Path, name: str) -> Path:
    """Rename `staged` to the folder of the model `name`, and return that folder.

    The caller must hold the lock that `changing` takes. `staged` must be called `model`, and its manifest
    must have the model's name, because the next change may need that name to move a model back.

    An installed model of the same name is moved to `replaced`, in the folder that contains `staged`, and back
    if `staged` cannot be renamed. If this process is killed in between, the next change moves it back.
    """
    assert staged.name == _STAGED, staged
    target, replaced = installed_path(store, name), staged.parent / _REPLACED
    was_installed = target.exists()
    try:
        if was_installed:
            target.rename(replaced)
        staged.rename(target)
    except BaseException:  # the folder with `replaced` is deleted next
        if was_installed and not target.exists():
            replaced.rename(target)
        raise
    return target


def remove(store: Path, name: str) -> bool:
    """Delete the folder of the model `name`. Return False if there is no such folder. Raises ModelStoreError
    (`store_unwritable` or `disk_full`) if the store cannot be written.

    No new folder is made, so a model can be removed from a full disk. A running fetch is neither waited for
    nor stopped: a fetch of this model installs the model again at its end.
    """
    folder, removed = installed_path(store, name), store / f"{_CHANGING}{secrets.token_hex(4)}"
    if not folder.exists():
        return False
    with disk.write_errors_explained(name, disk.MARGIN_BYTES, store), _changes_locked(store):
        try:
            folder.rename(removed)
        except FileNotFoundError:  # another process was faster
            return False
        _delete(removed)
    return True


@contextlib.contextmanager
def changing(store: Path) -> Iterator[Path]:
    """Hold the lock for changes, and yield a new folder in the store, which is deleted when the `with` block
    ends.

    The `with` block must be short, because other changes wait for the lock, and so does each fetch before it
    moves its finished model into the store. Raises ModelStoreError (`store_unwritable` or `disk_full`) if no
    folder can be made in the store.
    """
    with contextlib.ExitStack() as stack:
        with disk.write_errors_explained("", disk.MARGIN_BYTES, store):
            store.mkdir(parents=True, exist_ok=True)
            blobs.delete_expired(store)
            stack.enter_context(_changes_locked(store))
            staging = Path(tempfile.mkdtemp(prefix=_CHANGING, dir=store))
        stack.callback(shutil.rmtree, staging, ignore_errors=True)
        yield staging


def prepare(store: Path) -> None:
    """Create the store if it is missing, delete old uploads, and move back a model that a killed process was
    replacing. Raises ModelStoreError (`store_unwritable` or `disk_full`) if no file can be made in the store.
    """
    with disk.write_errors_explained("", disk.MARGIN_BYTES, store):
        store.mkdir(parents=True, exist_ok=True)
        (store / _FETCH_LOCK).open("w").close()
        blobs.delete_expired(store)
        with _changes_locked(store):
            pass


@contextlib.contextmanager
def locked_staging_folder(store: Path, on_wait: Callable[[], None] = lambda: None) -> Iterator[Path]:
    """Hold the lock for fetches, and yield a new staging folder, which is deleted when the `with`
    block ends.

    `on_wait` is called if another process holds the lock. Staging folders of dead processes are deleted.
    Raises ModelStoreError (`store_unwritable` or `disk_full`) if no folder can be made in the store.
    """
    with contextlib.ExitStack() as stack:
        prepare(store)
        with disk.write_errors_explained("", disk.MARGIN_BYTES, store):
            lock = stack.enter_context((store / _FETCH_LOCK).open("w"))
        is_locked = wait_for_lock(lock.fileno(), on_wait)
        with disk.write_errors_explained("", disk.MARGIN_BYTES, store):
            with _changes_locked(store):
                pass  # a model that a killed fetch was replacing has been moved back now
            _delete_abandoned(store, _STAGING, is_locked)
            staging = Path(tempfile.mkdtemp(prefix=_STAGING, dir=store))
        stack.callback(shutil.rmtree, staging, ignore_errors=True)
        yield staging


def clean_up(store: Path) -> None:
    """Delete what killed processes have left in the store, and uploads older than a day. Move back models
    that were being replaced. The staging folders of fetches stay if a fetch is running.

    A store that does not exist is not created. Raises OSError if the store cannot be read or written.
    """
    if not store.is_dir():
        return
    blobs.delete_expired(store)
    with _changes_locked(store):
        pass  # which deletes what changes have left
    if not any(store.glob(f"{_STAGING}*")):
        return
    try:
        lock = try_lock(store / _FETCH_LOCK)
    except OSError as error:
        raise_if_exhausted(error)
        _delete_abandoned(store, _STAGING, is_locked=False)
        return
    if lock is not None:
        try:
            _delete_abandoned(store, _STAGING, is_locked=True)
        finally:
            os.close(lock)


@contextlib.contextmanager
def _changes_locked(store: Path) -> Iterator[None]:
    """Hold the lock for changes, which a process needs to add or remove a model's folder, until the `with`
    block ends. Wait as long as another process holds it. Fetches have another lock, on the file `.lock`.

    First move back the models that killed processes were replacing, and delete the folders of changes that
    have not ended. On a file system without locks, the block runs without one.
    """
    with wait_for_folder_lock(store, instead=store / _CHANGES_LOCK) as is_locked:
        for prefix in (_CHANGING, _STAGING):
            for folder in _abandoned(store, prefix, is_locked):
                if _has_replaced(folder):
                    _move_back(folder / _REPLACED, store)
        _delete_abandoned(store, _CHANGING, is_locked)
        yield


def _move_back(replaced: Path, store: Path) -> None:
    """Restore the folder `replaced`, which holds the old version of a model: the process that was replacing
    the model was killed. If the model's own folder is missing, rename `replaced` to it. Otherwise delete
    `replaced`, because the new model is in place.

    The model's name is read from the manifest of the new version, if this is still in the same temporary
    folder as `replaced`, and else from the manifest in `replaced`. The latter is less certain: an old
    version that the user has put into the store may have no manifest, or the manifest of another model.

    No error is raised if `replaced` cannot be renamed, or if the name is unknown although the new version has
    not been moved. `replaced` then stays where it is, and the next change tries again.
    """
    staged = replaced.parent / _STAGED
    names = (read_manifest(folder).get("name") for folder in (staged, replaced))
    name = next((name for name in names if isinstance(name, str) and name), None)
    if name is None and os.path.lexists(staged):
        return
    if name is not None and not os.path.lexists(target := installed_path(store, name)):
        with contextlib.suppress(OSError, ValueError):
            replaced.rename(target)
    else:
        _delete(replaced)


def _abandoned(store: Path, prefix: str, is_locked: bool) -> Iterator[Path]:
    """Yield the temporary folders in the store whose names begin with `prefix` and which no living process
    uses: all, if the caller holds the lock under which such folders are used (`is_locked`); else those that
    have not changed for a day.
    """
    for folder in store.glob(f"{prefix}*"):
        if is_locked or _has_not_changed_for_a_day(folder):
            yield folder


def _has_not_changed_for_a_day(folder: Path) -> bool:
    try:
        changed_at = folder.lstat().st_mtime
    except FileNotFoundError:
        return False  # its process is alive, and has deleted it
    with contextlib.suppress(OSError):  # a fetch adds its files here
        changed_at = max(changed_at, (folder / _STAGED).lstat().st_mtime)
    return time.time() - changed_at > _SURELY_ABANDONED_S


def _delete_abandoned(store: Path, prefix: str, is_locked: bool) -> None:
    """Delete the folders that `_abandoned` yields, except those that still hold a replaced model."""
    for folder in _abandoned(store, prefix, is_locked):
        if not _has_replaced(folder):
            _delete(folder)


def _has_replaced(folder: Path) -> bool:
    """Return True if the temporary folder `folder` holds a model that was being replaced. Return False if it
    is a link: a link to a user's folder is renamed to a temporary name before it is deleted from the store,
    and the content of the user's folder does not count.
    """
    return not folder.is_symlink() and os.path.lexists(folder / _REPLACED)


def _delete(path: Path) -> None:
    """Delete a folder. If `path` is a link to a folder, delete only the link. What cannot be deleted is left
    there without an error, because the next change or fetch tries again.
    """
    with contextlib.suppress(OSError):
        if path.is_symlink():
            path.unlink()
    shutil.rmtree(path, ignore_errors=True)
