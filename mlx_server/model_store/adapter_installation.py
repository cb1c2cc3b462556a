"""Install adapters. An adapter in the configuration is fetched from the hub into its cache. While a new model
is made, an uploaded adapter or the adapter of the model's base is put into the new model's folder.
"""

from __future__ import annotations

import os.path
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from mlx_server.model_store import disk, layout
from mlx_server.model_store.adapters import Adapter, fetched_folder, read_adapter
from mlx_server.model_store.adapters.adapter import CONFIG, WEIGHTS
from mlx_server.model_store.adapters.configured import MANIFEST_KEY, SUBFOLDER
from mlx_server.model_store.catalog import ModelEntry, find, survey
from mlx_server.model_store.errors import ModelStoreError
from mlx_server.model_store.files import integrity, weight_files
from mlx_server.model_store.files.model_folder import read_facts
from mlx_server.model_store.files.weight_files import UnreadableModel
from mlx_server.model_store.progress import ReportStep
from mlx_server.model_store.sources import hub
from mlx_server.model_store.sources.source import HubSource, parse_source
from vestal.config import Config, find_named
from vestal.config.settings import ModelAdapter

_REMEDY = (
    "An adapter is adapter_config.json with adapters.safetensors (mlx-lm) or adapter_model.safetensors "
    "(PEFT), trained on this very model."
)


def ensure_adapter(config: Config, adapter: ModelAdapter, step: ReportStep) -> ModelEntry:
    """Fetch a configured adapter if it is missing, and return the model that consists of its base and the
    adapter.

    The base must be installed. Raises ModelStoreError if the adapter cannot be fetched or does not suit the
    base.
    """
    source = parse_source(adapter.name, adapter.source)
    if isinstance(source, HubSource) and not _is_current(config, adapter):

        def report_wait() -> None:
            step(0.0, "Waiting for another fetch.")

        layout.prepare(config.models_dir)
        snapshot = hub.fetch(adapter.name, replace(source, adapter=True), step)
        with layout.locked_staging_folder(config.models_dir, report_wait) as staging:
            if not _is_current(config, adapter):
                _install(config, adapter, snapshot, staging)
    if (entry := find(config, adapter.name)) is None:
        broken = find_named(adapter.name, survey(config)[1], lambda each: each.name)
        raise _not_an_adapter(adapter.name, broken.reason if broken else f"{adapter.source} has no adapter")
    step(1.0, "Ready.")
    return entry


def _is_current(config: Config, adapter: ModelAdapter) -> bool:
    installed = layout.installed_path(config.models_dir, adapter.name)
    folder = fetched_folder(installed)
    fetched_from = layout.read_manifest(installed).get("source")
    return folder is not None and os.path.isdir(folder) and fetched_from == adapter.source


def _install(config: Config, adapter: ModelAdapter, snapshot: Path, staging: Path) -> None:
    staged = staging / "model"
    staged.mkdir()
    manifest = {"source": adapter.source, "installed_at": time.time(), MANIFEST_KEY: str(snapshot)}
    layout.move_into_store(staged, config.models_dir, adapter.name, manifest)


def stage_uploads(name: str, uploads: Mapping[str, Path], staged: Path, base: Path) -> None:
    """Link the uploaded files of an adapter into `staged`, the folder of the model `name` that is being made,
    and check them against the model in the folder `base`.

    `uploads` maps the names of the files to their paths. Raises ModelStoreError (`not_an_adapter`) if they
    are not one configuration and one safetensors file, or do not suit the base.
    """
    configs = [path for file, path in uploads.items() if file.rsplit("/", 1)[-1] == CONFIG]
    tensors = [path for file, path in uploads.items() if file.endswith(".safetensors")]
    if any(file.endswith((".gguf", ".bin")) for file in uploads):
        raise _not_an_adapter(name, "adapters in GGUF or PyTorch files are not read")
    if len(configs) != 1 or len(tensors) != 1:
        raise _not_an_adapter(
            name,
            f"{CONFIG} and one safetensors file are needed, and there are {', '.join(uploads) or 'none'}",
        )
    folder = staged / SUBFOLDER
    folder.mkdir()
    disk.link_or_copy(name, configs[0], folder / CONFIG)
    try:
        is_peft = "peft_type" in weight_files.read_json_object(folder / CONFIG)
        disk.link_or_copy(name, tensors[0], folder / WEIGHTS["peft" if is_peft else "mlx-lm"])
        read_adapter(folder, base, read_facts(base).digest)
    except UnreadableModel as error:
        raise _not_an_adapter(name, str(error).replace(f"{folder}", "the upload")) from error
    _write_checksums(name, folder)


def stage_inherited(name: str, adapter: Adapter, staged: Path, store: Path) -> str:
    """Give the model `name`, which is being made in the folder `staged`, the adapter of the model from which
    it is made.

    If the adapter is in the model store, its files are linked into `staged`. Otherwise they belong to the
    user and are used where they are. Return the path of the adapter's folder for the manifest: relative to
    the model's folder if the files were linked, else absolute.
    """
    if store not in adapter.path.parents:
        return str(adapter.path)
    folder = staged / SUBFOLDER
    folder.mkdir()
    for path in (adapter.path / CONFIG, adapter.weights_file):
        disk.link_or_copy(name, path, folder / path.name)
    _write_checksums(name, folder)
    return SUBFOLDER


def _write_checksums(name: str, folder: Path) -> None:
    layout.write_manifest(folder, name, {integrity.MANIFEST_KEY: integrity.compute_checksums(folder)})


def _not_an_adapter(name: str, reason: str) -> ModelStoreError:
    return ModelStoreError("not_an_adapter", f"The adapter of {name} cannot be used: {reason}.", _REMEDY)
