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
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from mlx_server.model_store.errors import ModelStoreError

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
    or unreadable.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return manifest if isinstance(manifest, dict) else {}


def move_into_store(staged: Path, store: Path, name: str, manifest: dict[str, Any]) -> Path:
    """Write the manifest into the finished folder `staged`, rename it to the model's folder, and return that.

    `staged` must be in a staging folder of the store. A model of the same name is replaced as a whole.
    """
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
    `replaced`, in the folder that contains `staged`.
    """
    target = installed_path(store, name)
    if target.exists():
        target.rename(staged.parent / "replaced")
    staged.rename(target)
    return target


def remove(store: Path, name: str) -> bool:
    """Delete the folder of the model `name`. Return False if there is no such folder. Raises ModelStoreError
    (`store_unwritable`) if the store cannot be written.

    A running fetch is neither waited for nor stopped: a fetch of this model installs the model again at its
    end.
    """
    if not installed_path(store, name).exists():
        return False
    with changing(store) as staging:
        try:
            installed_path(store, name).rename(staging / "removed")
        except FileNotFoundError:  # another process was faster
            return False
    return True


@contextlib.contextmanager
def changing(store: Path) -> Iterator[Path]:
    """Hold the lock for changes, and yield a new folder in the store, which is deleted when the `with` block
    ends.

    The `with` block must be short, because other changes wait for the lock, and so does each fetch before it
    moves its finished model into the store. Raises ModelStoreError (`store_unwritable`) if the store cannot
    be written.
    """
    try:
        store.mkdir(parents=True, exist_ok=True)
        with _locked(store):
            _delete_abandoned(store, _CHANGING)
            staging = Path(tempfile.mkdtemp(prefix=_CHANGING, dir=store))
            try:
                yield staging
            finally:
                shutil.rmtree(staging, ignore_errors=True)
    except PermissionError as error:
        raise _unwritable(store, error) from error


@contextlib.contextmanager
def locked_staging_folder(store: Path, on_wait: Callable[[], None] = lambda: None) -> Iterator[Path]:
    """Hold the lock for fetches, and yield a new staging folder, which is deleted when the `with`
    block ends.

    `on_wait` is called if another process holds the lock. Staging folders of dead processes are deleted.
    Raises ModelStoreError (`store_unwritable`) if the store cannot be written.
    """
    try:
        store.mkdir(parents=True, exist_ok=True)
        lock = (store / ".lock").open("w")
    except OSError as error:
        raise _unwritable(store, error) from error
    with lock:
        _acquire(lock, on_wait)
        _delete_abandoned(store, _STAGING)
        try:
            staging = Path(tempfile.mkdtemp(prefix=_STAGING, dir=store))
        except OSError as error:
            raise _unwritable(store, error) from error
        try:
            yield staging
        finally:
            shutil.rmtree(staging, ignore_errors=True)


def _acquire(lock: IO[str], on_wait: Callable[[], None]) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        on_wait()
        fcntl.flock(lock, fcntl.LOCK_EX)


@contextlib.contextmanager
def _locked(store: Path) -> Iterator[None]:
    """Hold the lock on the store's folder itself, which is the lock for changes."""
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
        shutil.rmtree(abandoned, ignore_errors=True)


def _unwritable(store: Path, error: OSError) -> ModelStoreError:
    return ModelStoreError(
        "store_unwritable",
        f"The folder for models, {store}, cannot be written ({error.strerror or error}).",
        "Make it writable, or name another with mlx.store (VESTAL_MLX__STORE).",
    )
