"""The model store on disk. Each model has a folder with its files and a manifest; the folder is added or
removed by one rename.

<store>/smollm2__135m/        config.json, model.safetensors, tokenizer.json, ..., vestal-model.json
<store>/.staging-XXXX/        a fetch in progress; the next fetch deletes it if its process died
<store>/.changing-XXXX/       a model being made or removed; the next change deletes what is left of it
<store>/.lock                 locked (flock) by the process that fetches a model, for as long as that takes
<store>                       locked (flock) for the moment in which a model's folder is added or removed
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from mlx_server.model_store import disk
from mlx_server.model_store.errors import DAMAGE
from vestal.platform.exhaustion import raise_if_exhausted

MANIFEST = "vestal-model.json"
_STAGING, _CHANGING = ".staging-", ".changing-"


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

    `staged` must be in a staging folder of the store. A model of the same name is replaced as a whole. Raises
    ModelStoreError (`store_unwritable` or `disk_full`) if the store cannot be written.
    """
    with disk.write_errors_explained(name, disk.MARGIN_BYTES, store):
        write_manifest(staged, name, manifest)
        with _locked(store):
            return replace(staged, store, name)


def write_manifest(staged: Path, name: str, manifest: dict[str, Any]) -> None:
    """Write the manifest of model `name` into the folder `staged`."""
    (staged / MANIFEST).write_text(manifest_text(name, manifest), "utf-8")


def manifest_text(name: str, manifest: dict[str, Any]) -> str:
    """Return the content of the manifest of the model `name`, which is JSON in ASCII."""
    return json.dumps({"name": name, **manifest}, indent=1)


def replace(staged: Path, store: Path, name: str) -> Path:
    """Rename `staged` to the folder of the model `name`, and return that folder.

    The caller must hold the lock that `changing` takes. An installed model of the same name is moved to
    `replaced`, in the folder that contains `staged`, and back if `staged` cannot be renamed.
    """
    target, replaced = installed_path(store, name), staged.parent / "replaced"
    was_installed = target.exists()
    if was_installed:
        target.rename(replaced)
    try:
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
    with disk.write_errors_explained(name, disk.MARGIN_BYTES, store), _locked(store):
        _delete_abandoned(store, _CHANGING)
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
            stack.enter_context(_locked(store))
            _delete_abandoned(store, _CHANGING)
            staging = Path(tempfile.mkdtemp(prefix=_CHANGING, dir=store))
        stack.callback(shutil.rmtree, staging, ignore_errors=True)
        yield staging


@contextlib.contextmanager
def locked_staging_folder(store: Path, on_wait: Callable[[], None] = lambda: None) -> Iterator[Path]:
    """Hold the lock for fetches, and yield a new staging folder, which is deleted when the `with`
    block ends.

    `on_wait` is called if another process holds the lock. Staging folders of dead processes are deleted.
    Raises ModelStoreError (`store_unwritable` or `disk_full`) if no folder can be made in the store.
    """
    with contextlib.ExitStack() as stack:
        with disk.write_errors_explained("", disk.MARGIN_BYTES, store):
            store.mkdir(parents=True, exist_ok=True)
            lock = stack.enter_context((store / ".lock").open("w"))
        _acquire(lock, on_wait)
        with disk.write_errors_explained("", disk.MARGIN_BYTES, store):
            _delete_abandoned(store, _STAGING)
            staging = Path(tempfile.mkdtemp(prefix=_STAGING, dir=store))
        stack.callback(shutil.rmtree, staging, ignore_errors=True)
        yield staging


def _acquire(lock: IO[str], on_wait: Callable[[], None]) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        on_wait()
        fcntl.flock(lock, fcntl.LOCK_EX)


@contextlib.contextmanager
def _locked(store: Path) -> Iterator[None]:
    """Hold the lock for changes, which a process needs to add or remove a model's folder, until the `with`
    block ends. Wait as long as another process holds it. The lock is on the store's folder itself; fetches
    have another one, on the file `.lock` in it.
    """
    descriptor = os.open(store, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _delete_abandoned(store: Path, prefix: str) -> None:
    """Delete all temporary folders in the store whose names begin with `prefix`. The caller must hold the
    lock under which such folders are made, so that no living process uses them.
    """
    for abandoned in store.glob(f"{prefix}*"):
        _delete(abandoned)


def _delete(path: Path) -> None:
    """Delete a folder. If `path` is a link to a folder, delete only the link. What cannot be deleted is left
    there without an error, because the next change or fetch tries again.
    """
    with contextlib.suppress(OSError):
        if path.is_symlink():
            path.unlink()
    shutil.rmtree(path, ignore_errors=True)
