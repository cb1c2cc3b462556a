"""The store on disk: one folder a model with a manifest, installed by rename, one writer at a time.

<store>/smollm2__135m/        config.json, model.safetensors, tokenizer.json, ..., vestal-model.json
<store>/.staging-XXXX/        a fetch in progress; swept by the next one where its process died
<store>/.lock                 held (flock) by the one that fetches or removes
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mlx_server.model_store.errors import ModelStoreError

MANIFEST = "vestal-model.json"
_STAGING = ".staging-"


def folder_name(name: str) -> str:
    """`smollm2:135m` → `smollm2__135m`; a slash, which names may have, becomes `--`."""
    return name.replace("/", "--").replace(":", "__")


def model_name(folder: str) -> str:
    """The name for a folder found on disk: `qwen3__4b` → `qwen3:4b`, `My-Model` → `My-Model`."""
    return folder.replace("__", ":", 1)


def installed_path(store: Path, name: str) -> Path:
    return store / folder_name(name)


def read_manifest(folder: Path) -> dict[str, Any]:
    """What was written at installation; empty where there is none that can be read."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return manifest if isinstance(manifest, dict) else {}


def install(staged: Path, store: Path, name: str, manifest: dict[str, Any]) -> Path:
    """Put the finished folder `staged` (on the store's file system) in its place, all or nothing."""
    (staged / MANIFEST).write_text(json.dumps({"name": name, **manifest}, indent=1), "utf-8")
    target = installed_path(store, name)
    if target.exists():
        target.rename(staged.parent / "replaced")
    staged.rename(target)
    return target


@contextlib.contextmanager
def writing(store: Path, on_wait: Callable[[], None] = lambda: None) -> Iterator[Path]:
    """Hold the store's lock, sweep what dead fetches left, and give a staging folder that goes at the end."""
    try:
        store.mkdir(parents=True, exist_ok=True)
        lock = (store / ".lock").open("w")
    except OSError as error:
        raise _unwritable(store, error) from error
    with lock:
        _acquire(lock, on_wait)
        sweep(store)
        try:
            staging = Path(tempfile.mkdtemp(prefix=_STAGING, dir=store))
        except OSError as error:
            raise _unwritable(store, error) from error
        try:
            yield staging
        finally:
            shutil.rmtree(staging, ignore_errors=True)


def _acquire(lock: Any, on_wait: Callable[[], None]) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        on_wait()
        fcntl.flock(lock, fcntl.LOCK_EX)


def sweep(store: Path) -> list[Path]:
    """Remove staging folders. The caller holds the lock, so none belongs to a living fetch."""
    orphans = sorted(store.glob(f"{_STAGING}*"))
    for orphan in orphans:
        shutil.rmtree(orphan, ignore_errors=True)
    return orphans


def _unwritable(store: Path, error: OSError) -> ModelStoreError:
    return ModelStoreError(
        "store_unwritable",
        f"The folder for models, {store}, cannot be written ({error.strerror or error}).",
        "Make it writable, or name another with mlx.store (VESTAL_MLX__STORE).",
    )
