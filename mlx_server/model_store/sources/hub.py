"""Fetch models from `hf:` sources into the Hugging Face hub's own cache, which other tools share."""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from pathlib import Path

from mlx_server.model_store import disk
from mlx_server.model_store.files.integrity import sha256_of
from mlx_server.model_store.files.weight_files import weight_files
from mlx_server.model_store.progress import ReportStep, folder_bytes, report_growth
from mlx_server.model_store.sources import hub_download, hub_repository
from mlx_server.model_store.sources.hub_errors import explained, failed
from mlx_server.model_store.sources.hub_repository import Repository, patterns_of
from mlx_server.model_store.sources.source import HubSource
from vestal.config.units import format_size

_MODULE_FILE = re.compile(r"\d+_[A-Za-z]+/(config\.json|model\.safetensors)")
_SHA256 = re.compile(r"[0-9a-f]{64}")
CHECKED_FROM = 0.99
"""The fraction of progress at which all files are downloaded, and their sha256 are still to be checked."""
ANOTHER_CACHE = "Free some, or name another folder with HF_HOME."


def prepare() -> None:
    """Set the environment variables that `huggingface_hub` reads when it is imported, so that it prints
    nothing.
    """
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")


def repository(name: str, source: HubSource) -> Repository:
    """Return the files and facts of the repository of the model `name`. Raises ModelStoreError if the hub
    does not give them.
    """
    prepare()
    return hub_repository.read(name, source)


def cache_folder() -> Path:
    """Return the folder of the hub's cache, which HF_HOME or HF_HUB_CACHE can set."""
    prepare()
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def missing_bytes(found: Repository) -> int:
    """Return how many bytes of the repository's files have yet to be downloaded."""
    cache = cache_folder()
    large = hub_download.Blobs(cache, found)
    if large.large:
        small = sum(file.bytes for file in found.files if not file.sha256)
        return small + sum(file.bytes for file in large.large) - large.present_bytes()
    return max(found.bytes - folder_bytes(large.folder), 0)


def require_space(name: str, found: Repository) -> None:
    """Raise ModelStoreError (`disk_full`) if the disk of the hub's cache has no space for those files of the
    repository `found` that are not in the cache yet. `name` is the model that the error names.
    """
    disk.require_space(name, missing_bytes(found), cache_folder(), remedy=ANOTHER_CACHE)


def fetch(name: str, source: HubSource, step: ReportStep) -> Path:
    """Download the files of the model `name` that the hub's cache lacks, check them, and return the folder of
    the snapshot in that cache.

    For a source with a quantization, only its GGUF file is downloaded, and the path of that file is returned.
    `step` is called with the progress: when the hub is asked for the list of files, twice a second during the
    download, and before a file is checked. Raises ModelStoreError if the hub or the disk fails, or a file is
    damaged.
    """
    prepare()
    import huggingface_hub
    from huggingface_hub import constants

    host = constants.ENDPOINT.split("//", 1)[-1].split("/", 1)[0]
    step(0.0, f"Asking {host} for {source.repo}.")
    found = hub_repository.read(name, source)
    require_space(name, found)
    total, blobs = found.bytes, hub_download.Blobs(cache_folder(), found)
    checked = {file.sha256 for file in blobs.missing()}

    def done() -> int:
        return total - missing_bytes(found)

    def report(fraction: float) -> None:
        step(min(fraction, CHECKED_FROM), f"Downloading {source.repo}, {format_size(total)}.", total)

    full = disk.full_disk_explained(name, total, cache_folder(), ANOTHER_CACHE)
    try:
        with full, explained(name, source.repo, source.revision), report_growth(done, lambda: total, report):
            hub_download.download(name, found, blobs)
            path = huggingface_hub.snapshot_download(
                source.repo,
                revision=source.revision,
                allow_patterns=list(patterns_of(source))
                if source.quantization is None
                else [file.name for file in found.files],
            )
    except OSError as error:
        raise failed(name, source.repo, str(error)) from error
    verify(name, source, Path(path), step, {sha256 for sha256 in checked if sha256})
    return Path(path) if source.quantization is None else Path(path) / found.files[0].name


def verify(
    name: str,
    source: HubSource,
    folder: Path,
    step: ReportStep,
    checked: Collection[str] = (),
) -> None:
    """Check each weight file of the model `name` in `folder` against the sha256 that the hub announced,
    unless that sha256 is in `checked`. `step` is called before each file is read.

    The hub's library compares only the sizes of files. In its cache, the name of a large file is the
    announced sha256. If a file is damaged, it is deleted and ModelStoreError (`checksum_mismatch`) is raised.
    """
    for path in [*weight_files(folder), *folder.glob("*.gguf"), *folder.glob("adapter*.safetensors")]:
        blob = path.resolve()
        if not _SHA256.fullmatch(blob.name) or blob.name in checked:
            continue
        step(CHECKED_FROM, f"Checking {path.name}.")
        try:
            is_whole = sha256_of(blob) == blob.name
        except FileNotFoundError:  # another process has found it damaged
            is_whole = False
        if not is_whole:
            blob.unlink(missing_ok=True)
            raise hub_download.mismatch(name, source.repo, path.name)


def is_model_file(filename: str) -> bool:
    """Return True if a model may have a file of this name; program files are excluded.

    The file may be in the model's folder, or in the folder of a sentence-transformers module, such as
    `1_Pooling/config.json`.
    """
    is_of_module = _MODULE_FILE.fullmatch(filename) is not None
    return is_of_module or ("/" not in filename and hub_repository.is_wanted(filename))
