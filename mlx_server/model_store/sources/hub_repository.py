"""Read the content of a repository of the hub before its weights are downloaded.

The outline of a model is a folder with its small files, and with weight files of which only the header is
written; the rest of a weight file is a hole that takes no disk space. So all code that reads a model's folder
(what the model is for, how much memory it takes, why it is broken) can read a repository too, after a
download of about 100 KB for each weight file.
"""

from __future__ import annotations

import fnmatch
import json
import os
import re
import struct
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from mlx_server.model_store.errors import ModelStoreError
from mlx_server.model_store.files.weight_files import INDEX
from mlx_server.model_store.sources.hub_errors import explained
from mlx_server.model_store.sources.source import HubSource

PATTERNS = (
    *("*.json", "model*.safetensors", "[0-9]_*/model*.safetensors"),
    *("tokenizer.model", "*.tiktoken", "*.txt", "*.jinja", "*.jsonl", "README.md", "LICENSE*"),
)
"""The names of the files that are fetched: no program files, and no weights in other formats."""
ADAPTER_PATTERNS = ("adapter_config.json", "adapters.safetensors", "adapter_model.safetensors", "README.md")
"""The names of the files that are fetched for an adapter."""
TIMEOUT_S = 15.0
MAX_OUTLINED_BYTES = 4 * 1024 * 1024
"""The largest file that is read before the download. Larger ones are lists of tokens, of which only the size
is needed.
"""
MAX_INDEX_BYTES = 64 * 1024 * 1024
"""The largest index of weight files that is read before the download. The longest ones in use have 10 MB."""
_NOT_READ = frozenset({"tokenizer.json", "vocab.json"})
_CONNECTIONS = 8
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class HubFile:
    """A file of a repository. `sha256` is the checksum that the hub announces, which it does for large files
    only.
    """

    name: str
    bytes: int
    sha256: str | None = None


@dataclass(frozen=True)
class Repository:
    """A repository at one commit, with the files that would be fetched. `license` is a word such as `mit`, ""
    if unknown.

    Raises ModelStoreError (`fetch_failed`) if a file's name leads out of the repository, or its checksum is
    not a sha256: both become names of files on this machine.
    """

    repo: str
    commit: str
    files: tuple[HubFile, ...]
    license: str = ""
    pipeline_tag: str = ""
    downloads: int = 0
    gated: bool = False

    def __post_init__(self) -> None:
        for file in self.files:
            path = PurePosixPath(file.name)
            if not path.parts or path.is_absolute() or ".." in path.parts or "\0" in file.name:
                raise _wrong_list(
                    self.repo, f"the file {file.name[:100]!r}, which would lie outside of its folder"
                )
            if file.sha256 is not None and not _SHA256.fullmatch(file.sha256):
                raise _wrong_list(self.repo, f"the checksum {file.sha256[:100]!r}, which is not a sha256")

    @property
    def bytes(self) -> int:
        """Return the total size of the files that would be fetched."""
        return sum(file.bytes for file in self.files)


def _wrong_list(repo: str, what: str) -> ModelStoreError:
    return ModelStoreError(
        "fetch_failed",
        f"{repo} names {what}.",
        "Check HF_ENDPOINT, which may name a hub that is not to be trusted, or take another repository.",
    )


def read(name: str, source: HubSource) -> Repository:
    """Ask the hub for the repository of the model `name`, and return its facts and the list of its files that
    would be fetched. Raises ModelStoreError if the hub cannot be reached or does not give them.
    """
    from huggingface_hub import HfApi

    with explained(name, source.repo, source.revision):
        info = HfApi().model_info(
            source.repo, revision=source.revision, files_metadata=True, timeout=TIMEOUT_S
        )
    files = [
        HubFile(file.rfilename, file.size or 0, file.lfs.sha256 if file.lfs else None)
        for file in info.siblings or ()
    ]
    card: dict[str, Any] = info.card_data.to_dict() if info.card_data else {}
    license_word = card.get("license_name") or card.get("license")
    return Repository(
        repo=source.repo,
        commit=info.sha or source.revision or "main",
        files=tuple(wanted(name, source, files)),
        license=license_word if isinstance(license_word, str) else "",
        pipeline_tag=info.pipeline_tag or "",
        downloads=info.downloads or 0,
        gated=bool(info.gated),
    )


def wanted(name: str, source: HubSource, files: list[HubFile]) -> list[HubFile]:
    """Return those of `files` that are to be fetched for the model `name`. If `source` has a quantization,
    that is the one GGUF file with this quantization; else all files whose names match the patterns that
    `patterns_of` returns.

    Raises ModelStoreError (`model_not_found`) if no GGUF file has that quantization.
    """
    if source.quantization is None:
        return [file for file in files if is_wanted(file.name, patterns_of(source))]
    names = [file.name for file in files]
    found = gguf_of(source.quantization, names)
    if found is None:
        ggufs = (file for file in names if file.casefold().endswith(".gguf"))
        there = ", ".join(sorted(file for file in ggufs if "mmproj" not in file.casefold())[:20]) or "none"
        is_name = source.quantization.casefold().endswith(".gguf")
        wanted_file = f"GGUF file {source.quantization}" if is_name else f"GGUF file in {source.quantization}"
        raise ModelStoreError(
            "model_not_found",
            f"{source.repo} has no {wanted_file}, the source of model {name}; there are: {there}.",
            "Name another quantization, or an MLX repository (mlx-community/NAME-4bit).",
        )
    return [file for file in files if file.name == found]


def gguf_of(quantization: str, files: Iterable[str]) -> str | None:
    """Return the name of the GGUF file with this quantization; None if there is none. If `quantization` ends
    with `.gguf`, it is the name of the file itself.

    Files in subfolders, models that are split into several GGUF files, and the image parts of models
    (`mmproj`) are not considered.
    """
    whole = quantization.casefold()
    is_name = whole.endswith(".gguf")
    pattern = whole if is_name else f"{whole}.gguf"
    for file in sorted(files):
        bare = file.casefold()
        if "/" in file or "mmproj" in bare or not bare.endswith(pattern):
            continue
        before = bare.removesuffix(pattern)
        if not before or not is_name and before[-1] in "-._":
            return file
    return None


def patterns_of(source: HubSource) -> tuple[str, ...]:
    """Return the patterns for the names of the files to fetch: those of an adapter, or those of a model. Use
    it only if `source.quantization` is None; otherwise the one GGUF file that `gguf_of` returns is fetched.
    """
    return ADAPTER_PATTERNS if source.adapter else PATTERNS


def is_wanted(filename: str, patterns: tuple[str, ...] = PATTERNS) -> bool:
    """Return True if the file is to be fetched, because its name matches one of `patterns`."""
    return any(fnmatch.fnmatch(filename, pattern) for pattern in patterns)


def write_outline(name: str, repository: Repository, folder: Path) -> None:
    """Write the outline of the model `name` into the empty folder `folder`: its small files, and of each
    weight file only the header. Raises ModelStoreError if the hub does not give a file.
    """
    with explained(name, repository.repo, repository.commit), ThreadPoolExecutor(_CONNECTIONS) as pool:
        for _ in pool.map(lambda file: _outline(repository, file, folder), repository.files):
            pass


def _outline(repository: Repository, file: HubFile, folder: Path) -> None:
    path = folder / file.name
    path.parent.mkdir(parents=True, exist_ok=True)
    if file.name.endswith(".safetensors"):
        _write_header(path, _tensors(repository, file.name))
    elif file.name == INDEX and file.bytes > MAX_INDEX_BYTES:
        pass  # without an index, all weight files count
    elif file.name != INDEX and (file.name in _NOT_READ or file.bytes > MAX_OUTLINED_BYTES):
        _write_hole(path, file.bytes)
    else:
        path.write_bytes(_content(repository, file.name))


def _content(repository: Repository, filename: str) -> bytes:
    from huggingface_hub import hf_hub_url
    from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

    url = hf_hub_url(repository.repo, filename, revision=repository.commit)
    response = get_session().get(url, headers=build_hf_headers(), timeout=TIMEOUT_S)
    hf_raise_for_status(response)
    return bytes(response.content)


def _tensors(repository: Repository, filename: str) -> dict[str, Any]:
    """Return the header entry (dtype, shape, offsets) of each tensor in a safetensors file, by the tensor's
    name. Only the beginning of the file is downloaded.
    """
    from huggingface_hub import HfApi

    api = HfApi()
    found = api.parse_safetensors_file_metadata(repository.repo, filename, revision=repository.commit)
    return {
        tensor: {"dtype": info.dtype, "shape": info.shape, "data_offsets": list(info.data_offsets)}
        for tensor, info in found.tensors.items()
    }


def _write_header(path: Path, tensors: dict[str, Any]) -> None:
    header = json.dumps(tensors).encode()
    data_bytes = max((int(tensor["data_offsets"][1]) for tensor in tensors.values()), default=0)
    path.write_bytes(struct.pack("<Q", len(header)) + header)
    _write_hole(path, 8 + len(header) + data_bytes)


def _write_hole(path: Path, size_bytes: int) -> None:
    """Extend the file to `size_bytes` without writing data, so that the extension takes no disk space."""
    path.touch()
    os.truncate(path, size_bytes)
