"""Read what a repository of the hub holds, before its weights are downloaded.

The outline of a model is a folder with its small files, and with weight files of which only the header is
written: the rest is a hole that takes no disk. So all code that reads a model's folder (what it is for, what
memory it takes, why it is broken) reads a repository too, after some 100 KB for each weight file.
"""

from __future__ import annotations

import fnmatch
import json
import os
import struct
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlx_server.model_store.errors import ModelStoreError
from mlx_server.model_store.sources.hub_errors import explained
from mlx_server.model_store.sources.source import HubSource

PATTERNS = (
    *("*.json", "model*.safetensors", "[0-9]_*/model*.safetensors"),
    *("tokenizer.model", "*.tiktoken", "*.txt", "*.jinja", "*.jsonl", "README.md", "LICENSE*"),
)
"""The files that are fetched: no program files, and no weights in other formats."""
ADAPTER_PATTERNS = ("adapter_config.json", "adapters.safetensors", "adapter_model.safetensors", "README.md")
"""The files that are fetched of an adapter."""
TIMEOUT_S = 15.0
MAX_OUTLINED_BYTES = 4 * 1024 * 1024
"""Largest file that is read before the download. Larger ones are lists of tokens, whose size is enough."""
_NOT_READ = frozenset({"tokenizer.json", "vocab.json", "model.safetensors.index.json"})
_CONNECTIONS = 8


@dataclass(frozen=True)
class HubFile:
    """A file of a repository. Large ones have the sha256 under which the hub announces them."""

    name: str
    bytes: int
    sha256: str | None = None


@dataclass(frozen=True)
class Repository:
    """A repository at one commit, with the files that would be fetched. `license` is a word such as `mit`."""

    repo: str
    commit: str
    files: tuple[HubFile, ...]
    license: str = ""
    pipeline_tag: str = ""
    downloads: int = 0
    gated: bool = False

    @property
    def bytes(self) -> int:
        """Return the size of the files that would be fetched."""
        return sum(file.bytes for file in self.files)


def read(name: str, source: HubSource) -> Repository:
    """Ask the hub for the repository of model `name`. Raises ModelStoreError."""
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
    """Return the files to fetch: of a source with a quantization, its one GGUF file.

    Raises ModelStoreError (`model_not_found`) if no GGUF file has that quantization.
    """
    if source.quantization is None:
        return [file for file in files if is_wanted(file.name, patterns_of(source))]
    names = [file.name for file in files]
    found = gguf_of(source.quantization, names)
    if found is None:
        there = ", ".join(sorted(file for file in names if file.endswith(".gguf"))[:20]) or "none"
        raise ModelStoreError(
            "model_not_found",
            f"{source.repo} has no GGUF file in {source.quantization}, the source of model {name}; "
            f"there are: {there}.",
            "Name another quantization, or an MLX repository (mlx-community/NAME-4bit).",
        )
    return [file for file in files if file.name == found]


def gguf_of(quantization: str, files: Iterable[str]) -> str | None:
    """Return the GGUF file of this quantization: at the top of the repository, and in one piece."""
    pattern = f"{quantization}.gguf".casefold()
    for file in sorted(files):
        bare = file.casefold()
        if "/" not in file and bare.endswith(pattern) and bare.removesuffix(pattern)[-1:] in ("", *"-._"):
            return file
    return None


def patterns_of(source: HubSource) -> tuple[str, ...]:
    """Return the patterns of the files that are fetched of a source without a quantization."""
    return ADAPTER_PATTERNS if source.adapter else PATTERNS


def is_wanted(filename: str, patterns: tuple[str, ...] = PATTERNS) -> bool:
    """Return True if the file is fetched: its name matches one of `patterns`, by default those of a model."""
    return any(fnmatch.fnmatch(filename, pattern) for pattern in patterns)


def write_outline(name: str, repository: Repository, folder: Path) -> None:
    """Write the outline of the model `name` into the empty `folder`. Raises ModelStoreError."""
    with explained(name, repository.repo, repository.commit), ThreadPoolExecutor(_CONNECTIONS) as pool:
        for _ in pool.map(lambda file: _outline(repository, file, folder), repository.files):
            pass


def _outline(repository: Repository, file: HubFile, folder: Path) -> None:
    path = folder / file.name
    path.parent.mkdir(parents=True, exist_ok=True)
    if file.name.endswith(".safetensors"):
        _write_header(path, _tensors(repository, file.name))
    elif file.name in _NOT_READ or file.bytes > MAX_OUTLINED_BYTES:
        if file.name != "model.safetensors.index.json":  # what it names is in the headers
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
    """Return the header of a safetensors file, of which the hub sends the beginning only."""
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
    """Extend the file to `size_bytes`, without writing what is added."""
    path.touch()
    os.truncate(path, size_bytes)
