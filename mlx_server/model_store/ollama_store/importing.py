"""Import one model from Ollama's store by converting its weights. The files in that store are only read."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from mlx_server.model_store import disk, layout, preset
from mlx_server.model_store.catalog import find
from mlx_server.model_store.errors import ModelStoreError
from mlx_server.model_store.files import integrity, model_folder
from mlx_server.model_store.files.weight_files import UnreadableModel
from mlx_server.model_store.gguf import converter_process
from mlx_server.model_store.making import check_size, link_files
from mlx_server.model_store.ollama_store.candidates import MANIFEST_KEY, SOURCE, Candidate
from mlx_server.model_store.ollama_store.manifests import Layer
from mlx_server.model_store.ollama_store.preset_of import preset_of
from mlx_server.model_store.progress import OnProgress
from vestal.config import Config, canonical


def import_model(config: Config, found: Candidate, on_progress: OnProgress) -> list[str]:
    """Install the model under the name that it has at Ollama, and return sentences about what was left out.

    A model that was imported before is left as it is. The model is installed whole or not at all. Raises
    ModelStoreError if the model is refused, cannot be converted or read, or the disk is full.
    """
    name = canonical(found.model.name)
    if found.state == "installed":
        on_progress(name, 1.0, "It is imported already.", 0)
        return []
    weights = found.model.layer("model")
    if found.state == "refused" or weights is None:
        raise ModelStoreError(
            "conversion_failed",
            f"Model {name} of Ollama cannot be imported: {found.reason}.",
            "`vestal models import-from-ollama` lists those that can be.",
        )
    last = 0.0

    def step(fraction: float, sentence: str, total_bytes: int = 0) -> None:
        nonlocal last
        last = max(last, fraction * 0.98)
        on_progress(name, last, sentence, total_bytes)

    def report_wait() -> None:
        step(0.0, "Waiting for another fetch.")

    explained = disk.full_disk_explained(name, found.needed_bytes, config.models_dir)
    try:
        with explained, layout.locked_staging_folder(config.models_dir, report_wait) as staging:
            staged = staging / "model"
            twin = _converted_before(config, weights)
            if twin is not None:
                step(0.5, f"Linking the weights of {twin.name}.")
                staged.mkdir()
                link_files(name, twin, staged)
            else:
                disk.require_space(name, found.needed_bytes, config.models_dir)
                converter_process.run(name, weights.path, staged, step)
            notes = _install(config, name, found, weights, staged)
    except OSError as error:
        raise ModelStoreError(
            "conversion_failed",
            f"Model {name} of Ollama cannot be imported: {error}.",
            "Make its files readable, and run the same command again.",
        ) from error
    on_progress(name, 1.0, "Ready.", 0)
    return [*found.notes, *notes]


def _converted_before(config: Config, weights: Layer) -> Path | None:
    """Return the folder of a model in the store that was converted from the same weight file; None if there
    is none.
    """
    try:
        folders = sorted(config.models_dir.iterdir())
    except OSError:
        return None
    for folder in folders:
        imported = layout.read_manifest(folder).get(MANIFEST_KEY)
        same = isinstance(imported, dict) and imported.get("weights") == weights.digest
        if same and not folder.name.startswith(".") and model_folder.looks_like_model(folder):
            return folder
    return None


def _install(config: Config, name: str, found: Candidate, weights: Layer, staged: Path) -> list[str]:
    """Move the converted model from `staged` into the store as `name`, with the preset that it has at Ollama.
    Return sentences about what of the preset was left out.

    `found` is the model in Ollama's store, and `weights` its layer that was converted. Raises ModelStoreError
    if the model or its preset is invalid, or the preset is too large, and OSError if a file cannot be read or
    written.
    """
    try:
        model_folder.read_facts(staged)
        made, notes = preset_of(found.model, own_template=model_folder.chat_template(staged))
    except (UnreadableModel, ValueError) as error:
        raise ModelStoreError(
            "not_a_model",
            f"Model {name} of Ollama cannot be imported: {error}.",
            "Pull it again with Ollama, or leave it out.",
        ) from error
    manifest: dict[str, Any] = {
        "source": f"{SOURCE}{found.model.name}",
        "installed_at": time.time(),
        MANIFEST_KEY: {"weights": weights.digest, "manifest": found.model.digest},
        integrity.MANIFEST_KEY: integrity.compute_checksums(staged),
        preset.MANIFEST_KEY: made.as_manifest(),
    }
    check_size(name, manifest)
    layout.move_into_store(staged, config.models_dir, name, manifest)
    if find(config, name) is None:
        raise ModelStoreError(
            "not_a_model",
            f"Model {name} of Ollama was converted, and cannot be read.",
            "Report this, please.",
        )
    return notes
