"""Make a model from another one or from uploaded files, with a new name and its own preset."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlx_server.model_store import disk, layout, preset
from mlx_server.model_store.adapter_installation import stage_inherited, stage_uploads
from mlx_server.model_store.adapters.configured import MANIFEST_KEY, SUBFOLDER
from mlx_server.model_store.blobs import Blobs
from mlx_server.model_store.catalog import ModelEntry, find
from mlx_server.model_store.errors import ModelStoreError
from mlx_server.model_store.files import integrity, loadable
from mlx_server.model_store.files.weight_files import UnreadableModel
from mlx_server.model_store.gguf import converter_process
from mlx_server.model_store.gguf.reader import is_image_part
from mlx_server.model_store.preset import Preset
from mlx_server.model_store.sources.hub import is_model_file
from vestal.config import Config, canonical, name_key
from vestal.config.units import format_size
from vestal.platform.exhaustion import raise_if_exhausted

MAX_PRESET_BYTES = 4 * 1024 * 1024
"""The largest manifest of a made model. It is limited because it is read each time that the models are
listed.
"""


def make(
    config: Config,
    name: str,
    base: ModelEntry,
    added: Preset,
    adapter_files: Mapping[str, str] | None = None,
) -> None:
    """Install the model `name` with the files and the adapter of the model `base`, and with the preset of
    `base`, changed by the values in `added`.

    If `base` is in the store, its files are linked, so that they take no space and stay when `base` is
    removed. Otherwise they belong to the user and are used where they are. `adapter_files` maps the file
    names of an uploaded adapter to the digests of the uploads, which are deleted afterwards; only a `base`
    without an adapter can get one.

    A model `name` in the store is replaced. Raises ModelStoreError if the name is that of a configured model
    or of a folder in the user's models folder (see `check_replaceable`), an upload is missing or unusable,
    the preset is too large, or the store cannot be written.
    """
    uploads = check_uploads(config, adapter_files or {})
    if uploads and base.adapter is not None:
        raise ModelStoreError(
            "not_an_adapter",
            f"{base.name} has an adapter already, and a model has at most one.",
            "Name the model without an adapter in `from`.",
        )
    full_name = _full_name(config, name)
    manifest = _manifest(full_name, base.preset.with_additions(added))
    store = config.models_dir
    in_store = base.path.parent == store
    if in_store:
        manifest = layout.read_manifest(base.path) | manifest
    else:
        manifest["path"] = str(base.path)
    manifest.pop("name", None)
    manifest.pop(MANIFEST_KEY, None)
    with disk.write_errors_explained(name, disk.MARGIN_BYTES, store), layout.changing(store) as staging:
        staged = staging / "model"
        staged.mkdir()
        if in_store:
            link_files(name, base.path, staged)
        if uploads:
            stage_uploads(full_name, uploads, staged, base.path)
            manifest[MANIFEST_KEY] = SUBFOLDER
        elif base.adapter is not None:
            manifest[MANIFEST_KEY] = stage_inherited(full_name, base.adapter, staged, store)
        layout.write_manifest(staged, full_name, manifest)
        layout.replace(staged, store, full_name)
    for path in uploads.values():
        path.unlink(missing_ok=True)


def make_of_files(
    config: Config,
    name: str,
    files: Mapping[str, str],
    added: Preset,
    adapter_files: Mapping[str, str] | None = None,
) -> None:
    """Install the model `name` from uploaded files: one GGUF file, which is converted, or a folder with
    safetensors. A second GGUF file, with the model's image part (`mmproj`), is not used. `added` is the
    model's preset: what it adds to its files, such as a system prompt.

    `files` and `adapter_files` map the file names of the model and of an adapter to the digests of the
    uploads; the uploads are deleted afterwards. Raises ModelStoreError if the name is taken, an upload is
    missing or unusable, `added` is too large, or the store cannot be written.
    """
    full_name = _full_name(config, name)
    uploads, adapter_uploads = check_uploads(config, files), check_uploads(config, adapter_files or {})
    manifest = _manifest(full_name, added)
    store = config.models_dir
    explained = disk.write_errors_explained(name, disk.MARGIN_BYTES, store)
    with explained, Blobs(store).working_folder() as folder:
        staged = folder / "model"
        gguf = _gguf_of_model(uploads)
        if gguf is not None:
            source = folder / "uploaded.gguf"
            disk.link_or_copy(name, gguf, source)
            converter_process.run(full_name, source, staged, lambda *_: None)
        else:
            staged.mkdir()
            for file, path in uploads.items():
                if is_model_file(file):
                    (staged / file).parent.mkdir(exist_ok=True)
                    disk.link_or_copy(name, path, staged / file)
        try:
            loadable.check_loadable(staged)
        except UnreadableModel as error:
            reason = str(error).replace(f"{staged}", "the upload")
            raise _no_model(reason) from error
        manifest[integrity.MANIFEST_KEY] = integrity.compute_checksums(staged)
        if adapter_uploads:
            stage_uploads(full_name, adapter_uploads, staged, staged)
            manifest[MANIFEST_KEY] = SUBFOLDER
        layout.write_manifest(staged, full_name, manifest)
        with layout.changing(store) as place:
            layout.replace(staged.rename(place / "model"), store, full_name)
    for path in (*uploads.values(), *adapter_uploads.values()):
        path.unlink(missing_ok=True)


def _gguf_of_model(uploads: Mapping[str, Path]) -> Path | None:
    """Return the uploaded GGUF file that holds the model; None if no GGUF file was uploaded. `uploads` maps
    the names of the uploaded files to their paths.

    GGUF files with a model's image part (`mmproj`) are ignored if there is another GGUF file. If only an
    image part was uploaded, it is returned, and the converter refuses it with an error. Raises
    ModelStoreError (`not_a_model`) if several files remain.
    """
    files = {name: path for name, path in uploads.items() if name.casefold().endswith(".gguf")}
    models = {name: path for name, path in files.items() if not is_image_part(path)} or files
    if len(models) > 1:
        raise _no_model(
            f"there are {len(models)} GGUF files with a model, {', '.join(sorted(models)[:4])[:200]}",
            "Give one of them; join the parts of a split model with `llama-gguf-split --merge`.",
        )
    return next(iter(models.values()), None)


def _no_model(
    reason: str, remedy: str = "Give one GGUF file, or config.json, tokenizer.json and model*.safetensors."
) -> ModelStoreError:
    return ModelStoreError("not_a_model", f"No model can be made of these files: {reason}.", remedy)


def check_uploads(config: Config, files: Mapping[str, str]) -> dict[str, Path]:
    """Return the paths of uploaded files by their names, and postpone the automatic deletion of these uploads
    by another day. `files` maps the files' names to the digests of their contents.

    Raises ModelStoreError: `invalid_digest` if a digest is not a sha256, `blob_not_found` if a file was not
    uploaded.
    """
    blobs = Blobs(config.models_dir)
    for file, digest in files.items():
        if not blobs.has(digest):
            message = f"{file[:80]} was not uploaded."
            raise ModelStoreError("blob_not_found", message, "Send it by POST /api/blobs/sha256:HEX first.")
    return {file: blobs.path(digest) for file, digest in files.items()}


def _full_name(config: Config, name: str) -> str:
    """Return the canonical name of the new model, or the name of the installed model that it replaces. Raises
    ModelStoreError (`name_taken`) if no model can be made under this name.
    """
    check_replaceable(config, name)
    replaced = find(config, name)
    return replaced.name if replaced else canonical(name)


def _manifest(full_name: str, made: Preset) -> dict[str, Any]:
    manifest = {"installed_at": time.time(), preset.MANIFEST_KEY: made.as_manifest()}
    check_size(full_name, manifest)
    return manifest


def check_size(full_name: str, manifest: dict[str, Any]) -> None:
    """Raise ModelStoreError (`preset_too_large`) if the text of a model's manifest is larger than
    MAX_PRESET_BYTES.
    """
    if len(layout.manifest_text(full_name, manifest)) > MAX_PRESET_BYTES:
        limit = format_size(MAX_PRESET_BYTES)
        raise ModelStoreError(
            "preset_too_large",
            f"System prompt, messages and template of {full_name} are over {limit}.",
            "Leave out some of the messages.",
        )


def check_replaceable(config: Config, name: str) -> None:
    """Raise ModelStoreError (`name_taken`) if no model can be made as `name`: it is the name of a configured
    model or of a folder in the user's models folder, or its folder in the store has a model of another name.
    """
    if config.configured_name(name) is not None or config.adapter(name) is not None:
        where = "it is in the configuration (`models:`)"
    elif _in_models_folder(config, name):
        where = f"it is the name of a folder in {config.mlx.models_folder}"
    else:
        other = layout.read_manifest(layout.installed_path(config.models_dir, canonical(name))).get("name")
        if not isinstance(other, str) or name_key(other) == name_key(name):
            return
        where = f"its folder would be that of {other}"
    raise ModelStoreError("name_taken", f"A model cannot be made as {name}: {where}.", "Choose another name.")


def _in_models_folder(config: Config, name: str) -> bool:
    try:
        folders = [path.name for path in config.mlx.models_folder.iterdir()]
    except OSError as error:
        raise_if_exhausted(error)
        return False
    return any(name_key(layout.model_name(folder)) == name_key(name) for folder in folders)


def link_files(name: str, source: Path, target: Path) -> None:
    """Link the files of the model in the folder `source`, without its manifest and adapter, into the folder
    `target`. Files are copied if the file system does not support hard links.

    `name` is the new model, which an error names. Raises ModelStoreError (`disk_full`) if there is no space
    for a copy, and OSError if a file can be neither linked nor copied.
    """
    for path in sorted(source.rglob("*")):
        copy = target / path.relative_to(source)
        if path.relative_to(source).parts[0] == SUBFOLDER:
            continue
        if path.is_dir():
            copy.mkdir()
        elif path.name != layout.MANIFEST:
            disk.link_or_copy(name, path, copy)
