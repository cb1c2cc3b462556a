"""`hf:` sources: a snapshot in the Hugging Face hub's own cache, which other tools share and can resume."""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Iterable
from pathlib import Path

from mlx_server.model_store import disk
from mlx_server.model_store.errors import ModelStoreError
from mlx_server.model_store.files.integrity import sha256_of
from mlx_server.model_store.files.weight_files import weight_files
from mlx_server.model_store.progress import ReportStep, folder_bytes, report_growth
from mlx_server.model_store.sources.source import HubSource

PATTERNS = ["*.json", "model*.safetensors", "tokenizer.model", "*.tiktoken", "*.txt", "*.jinja", "*.jsonl"]
_SHA256 = re.compile(r"[0-9a-f]{64}")


def fetch(name: str, source: HubSource, step: ReportStep) -> Path:
    """Download the files that are missing; return the snapshot's folder. Raises ModelStoreError.

    Of a source with a quantization only the GGUF file is downloaded, and its path returned.
    """
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # read by the library at its import
    import huggingface_hub
    from huggingface_hub import constants, errors

    step(0.0, f"Asking {_host(constants.ENDPOINT)} for {source.repo}.")
    cache, total = Path(constants.HF_HUB_CACHE), 0
    try:
        files = _files(name, source)
        total = sum(files.values())
        disk.require_space(name, total - folder_bytes(_repository(cache, source) / "blobs"), cache)
        with report_growth(
            _repository(cache, source),
            lambda: total,
            lambda fraction: step(fraction, f"Downloading {source.repo}, {disk.format_size(total)}.", total),
        ):
            path = huggingface_hub.snapshot_download(
                source.repo,
                revision=source.revision,
                allow_patterns=PATTERNS if source.quantization is None else list(files),
            )
    except ModelStoreError:
        raise
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError) as error:
        raise _absent(name, source) from error
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled) as error:
        raise _unreachable(name, source, _host(constants.ENDPOINT)) from error
    except (errors.HfHubHTTPError, ValueError) as error:
        raise _failed(name, source, str(error)) from error
    except OSError as error:
        if disk.is_disk_full(error):
            raise disk.disk_full_error(name, total, disk.free_bytes(cache), cache) from error
        raise _failed(name, source, str(error)) from error
    except Exception as error:  # errors of the library's HTTP client, and of answers that are not a hub's
        if _is_transport_error(error):
            raise _unreachable(name, source, _host(constants.ENDPOINT)) from error
        said = f"{_host(constants.ENDPOINT)} does not answer as a hub does ({type(error).__name__})"
        raise _failed(name, source, said) from error
    verify(name, source, Path(path), step)
    return Path(path) if source.quantization is None else Path(path) / next(iter(files))


def _is_transport_error(error: Exception) -> bool:
    """Return True for a network error of any HTTP client.

    Classes are compared by name, because the library's client (httpx, httpx2, requests) changes between its
    releases.
    """
    return any(kind.__name__ in ("TransportError", "ConnectionError") for kind in type(error).__mro__)


def verify(name: str, source: HubSource, folder: Path, step: ReportStep) -> None:
    """Compare each weight file with its sha256. The hub's library compares only the sizes.

    The hub announces the sha256 of large files, and the library stores them under it. Deletes a damaged file
    and raises ModelStoreError (`checksum_mismatch`).
    """
    for path in [*weight_files(folder), *folder.glob("*.gguf")]:
        blob = path.resolve()
        if not _SHA256.fullmatch(blob.name):
            continue
        step(0.99, f"Checking {path.name}.")
        if sha256_of(blob) != blob.name:
            blob.unlink()
            raise ModelStoreError(
                "checksum_mismatch",
                f"{path.name} of {source.repo}, the source of model {name}, was damaged during the download.",
                f"It has been removed; run `vestal models pull {name}` again.",
            )


def _repository(cache: Path, source: HubSource) -> Path:
    """Return the folder in the hub's cache that holds the repository's files."""
    return cache / ("models--" + source.repo.replace("/", "--"))


def _files(name: str, source: HubSource) -> dict[str, int]:
    """Return the size of each file of the repository that is fetched, by its name.

    Raises ModelStoreError (`model_not_found`) if no GGUF file has the wanted quantization, and the errors of
    the library.
    """
    from huggingface_hub import HfApi

    info = HfApi().model_info(source.repo, revision=source.revision, files_metadata=True, timeout=15)
    sizes = {file.rfilename: file.size or 0 for file in info.siblings or ()}
    if source.quantization is None:
        return {file: size for file, size in sizes.items() if _is_wanted(file)}
    found = gguf_of(source.quantization, sizes)
    if found is None:
        there = ", ".join(sorted(file for file in sizes if file.endswith(".gguf"))[:20]) or "none"
        raise ModelStoreError(
            "model_not_found",
            f"{source.repo} has no GGUF file in {source.quantization}, the source of model {name}; "
            f"there are: {there}.",
            "Name another quantization, or an MLX repository (mlx-community/NAME-4bit).",
        )
    return {found: sizes[found]}


def gguf_of(quantization: str, files: Iterable[str]) -> str | None:
    """Return the GGUF file of this quantization: at the top of the repository, and in one piece."""
    pattern = re.compile(rf"(?:[^/]*[-._])?{re.escape(quantization)}\.gguf", re.IGNORECASE)
    return next((file for file in sorted(files) if pattern.fullmatch(file)), None)


def is_model_file(filename: str) -> bool:
    """Return True if `name`, without a folder, is that of a model's file. Program files are excluded."""
    return "/" not in filename and _is_wanted(filename)


def _is_wanted(filename: str) -> bool:
    return any(fnmatch.fnmatch(filename, pattern) for pattern in PATTERNS)


def _host(endpoint: str) -> str:
    return endpoint.split("//", 1)[-1].split("/", 1)[0]


def _absent(name: str, source: HubSource) -> ModelStoreError:
    at = f" at revision {source.revision}" if source.revision else ""
    return ModelStoreError(
        "model_not_found",
        f"The hub shows no repository {source.repo}{at}, the source of model {name}.",
        "Correct the source in the configuration; if it is private or gated, log in with `hf auth login`.",
    )


def _unreachable(name: str, source: HubSource, host: str) -> ModelStoreError:
    return ModelStoreError(
        "network_unavailable",
        f"The hub ({host}) cannot be reached, or breaks off, for {source.repo}, the source of model {name}.",
        "Check the network, or HF_ENDPOINT and HF_HUB_OFFLINE; what was fetched so far is kept.",
    )


def _failed(name: str, source: HubSource, why: str) -> ModelStoreError:
    first = why.strip().partition("\n")[0] or "it does not say why"
    return ModelStoreError(
        "fetch_failed",
        f"The hub's library could not fetch {source.repo}, the source of model {name}: {first[:300]}",
        f"Put that right, then run `vestal models pull {name}` again.",
    )
