"""`hf:` sources: a snapshot in the Hugging Face hub's own cache, which other tools share and resume."""

from __future__ import annotations

import fnmatch
import os
import re
from pathlib import Path

from mlx_server.model_store import disk
from mlx_server.model_store.errors import ModelStoreError
from mlx_server.model_store.files.integrity import sha256
from mlx_server.model_store.files.weight_files import weight_files
from mlx_server.model_store.progress import Step, watching
from mlx_server.model_store.sources.source import HubSource

PATTERNS = ["*.json", "model*.safetensors", "tokenizer.model", "*.tiktoken", "*.txt", "*.jinja", "*.jsonl"]
_SHA256 = re.compile(r"[0-9a-f]{64}")


def fetch(name: str, source: HubSource, step: Step) -> Path:
    """Download what is missing; the snapshot's folder. Raises ModelStoreError."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # read by the library at its import
    import huggingface_hub
    from huggingface_hub import constants, errors

    step(0.0, f"Asking {_host(constants.ENDPOINT)} for {source.repo}.")
    cache = Path(constants.HF_HUB_CACHE)
    try:
        total = _size(source)
        disk.require(name, total - _present(cache, source), cache)
        with watching(
            cache / ("models--" + source.repo.replace("/", "--")),
            lambda: total,
            lambda fraction: step(fraction, f"Downloading {source.repo}, {disk.size(total)}.", total),
        ):
            path = huggingface_hub.snapshot_download(
                source.repo, revision=source.revision, allow_patterns=PATTERNS
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
        if disk.is_full(error):
            raise disk.full(name, total, disk.free_bytes(cache), cache) from error
        raise _failed(name, source, str(error)) from error
    except Exception as error:  # the library lets its HTTP client's errors out, and trusts what it reads
        if _of_transport(error):
            raise _unreachable(name, source, _host(constants.ENDPOINT)) from error
        said = f"{_host(constants.ENDPOINT)} does not answer as a hub does ({type(error).__name__})"
        raise _failed(name, source, said) from error
    verify(name, source, Path(path), step)
    return Path(path)


def _of_transport(error: Exception) -> bool:
    """By name: which HTTP client the library uses (httpx, httpx2, requests) changes between its releases."""
    return any(kind.__name__ in ("TransportError", "ConnectionError") for kind in type(error).__mro__)


def verify(name: str, source: HubSource, folder: Path, step: Step) -> None:
    """Large files are kept under their sha256, which the hub gave; its library compares sizes only.

    Raises ModelStoreError (`checksum_mismatch`), the damaged file removed.
    """
    for path in weight_files(folder):
        blob = path.resolve()
        if not _SHA256.fullmatch(blob.name):
            continue
        step(0.99, f"Checking {path.name}.")
        if sha256(blob) != blob.name:
            blob.unlink()
            raise ModelStoreError(
                "checksum_mismatch",
                f"{path.name} of {source.repo}, the source of model {name}, was damaged on its way.",
                f"It has been removed; run `vestal models pull {name}` again.",
            )


def _size(source: HubSource) -> int:
    from huggingface_hub import HfApi

    info = HfApi().model_info(source.repo, revision=source.revision, files_metadata=True, timeout=15)
    files = (file for file in info.siblings or () if _wanted(file.rfilename))
    return sum(file.size or 0 for file in files)


def _wanted(filename: str) -> bool:
    return any(fnmatch.fnmatch(filename, pattern) for pattern in PATTERNS)


def _present(cache: Path, source: HubSource) -> int:
    from mlx_server.model_store.progress import folder_bytes

    return folder_bytes(cache / ("models--" + source.repo.replace("/", "--")) / "blobs")


def _host(endpoint: str) -> str:
    return endpoint.split("//", 1)[-1].split("/", 1)[0]


def _absent(name: str, source: HubSource) -> ModelStoreError:
    at = f" at revision {source.revision}" if source.revision else ""
    return ModelStoreError(
        "model_not_found",
        f"The hub shows no repository {source.repo}{at}, the source of model {name}.",
        "Correct the source in the configuration; where it is private or gated, log in with `hf auth login`.",
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
