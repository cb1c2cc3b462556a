"""Reads a model's folder without mlx: its configuration and the headers of its weight files."""

from __future__ import annotations

import functools
import hashlib
import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mlx_server.model_store.files import weight_files
from mlx_server.model_store.files.weight_files import UnreadableModel

_EMBEDDING_TYPES = frozenset({"bert"})
_DTYPES = {"F32": "F32", "F16": "F16", "BF16": "BF16"}


__all__ = ["ModelFacts", "UnreadableModel", "find_model", "looks_like_model", "read"]


@dataclass(frozen=True)
class ModelFacts:
    """What a model's files say about it. `bytes` is all its files', `parameters` a count of weights."""

    kind: Literal["generate", "embed"]
    family: str
    bytes: int
    weights_bytes: int
    parameters: int
    quantization: str
    context_tokens: int
    digest: str
    modified: float
    config: dict[str, Any]


def looks_like_model(folder: Path) -> bool:
    """Has it the two things that every model has?"""
    return (folder / "config.json").is_file() and any(folder.glob("model*.safetensors"))


def find_model(tree: Path) -> Path | None:
    """The model in an unpacked tree: the topmost folder that is one, or GGUF file."""
    folders = (path.parent for path in tree.rglob("config.json") if looks_like_model(path.parent))
    found = [*folders, *tree.rglob("*.gguf")]
    return min(found, key=lambda path: (len(path.parts), str(path)), default=None)


def read(folder: Path) -> ModelFacts:
    """The facts of the model in `folder`. Raises UnreadableModel."""
    try:
        stamp = tuple((p.name, p.stat().st_mtime_ns, p.stat().st_size) for p in _files(folder))
        return _read(folder, stamp)
    except (OSError, KeyError, TypeError, ValueError) as error:  # the files are anybody's
        raise UnreadableModel(f"{folder}: {type(error).__name__}: {error}") from error


@functools.lru_cache(maxsize=64)
def _read(folder: Path, stamp: tuple[tuple[str, int, int], ...]) -> ModelFacts:
    config = weight_files.config(folder)
    digest = hashlib.sha256((folder / "config.json").read_bytes())
    headers: dict[str, Any] = {}
    by_file: dict[str, dict[str, Any]] = {}
    for path in weight_files.weight_files(folder):
        raw, by_file[path.name] = weight_files.header(path)
        digest.update(path.name.encode() + struct.pack("<Q", path.stat().st_size) + raw)
        headers.update(by_file[path.name])
    if not headers:
        raise UnreadableModel(f"{folder}: no weights in model*.safetensors")
    weight_files.check_index(folder, by_file)
    if (tokenizer := folder / "tokenizer.json").is_file():
        digest.update(tokenizer.read_bytes())
    embeds = config.get("model_type") in _EMBEDDING_TYPES
    bits, group_size = _quantization(config)
    return ModelFacts(
        kind="embed" if embeds else "generate",
        family=str(config.get("model_type", "unknown")),
        bytes=sum(size for _, _, size in stamp),
        weights_bytes=sum(_end(entry) for entry in headers.values()),
        parameters=sum(_count(name, entry, headers, group_size) for name, entry in headers.items()),
        quantization=f"Q{bits}" if bits else _dtype(headers),
        context_tokens=_context_tokens(folder, config, embeds),
        digest=digest.hexdigest(),
        modified=max(mtime for _, mtime, _ in stamp) / 1e9,
        config=config,
    )


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.iterdir()) if path.is_file())


def _end(entry: dict[str, Any]) -> int:
    start, end = entry["data_offsets"]
    return int(end - start)


def _count(name: str, entry: dict[str, Any], headers: dict[str, Any], group_size: int) -> int:
    """The weights that a tensor stands for: a packed one has as many as its scales have groups."""
    stem, _, last = name.rpartition(".")
    scales = headers.get(f"{stem}.scales")
    if scales is None:
        return math.prod(entry["shape"])
    return math.prod(scales["shape"]) * group_size if last == "weight" else 0


def _quantization(config: dict[str, Any]) -> tuple[int | None, int]:
    """Bits (None: not quantized) and group size."""
    quantization = config.get("quantization")
    found = quantization if isinstance(quantization, dict) else {}
    bits, group_size = found.get("bits"), found.get("group_size", 64)
    return (bits if isinstance(bits, int) and bits > 0 else None), int(group_size)


def _dtype(headers: dict[str, Any]) -> str:
    bytes_by_dtype: dict[str, int] = {}
    for entry in headers.values():
        bytes_by_dtype[entry["dtype"]] = bytes_by_dtype.get(entry["dtype"], 0) + _end(entry)
    most = max(bytes_by_dtype, key=lambda dtype: bytes_by_dtype[dtype])
    return _DTYPES.get(most, most)


def _context_tokens(folder: Path, config: dict[str, Any], embeds: bool) -> int:
    text = config.get("text_config")
    limit = config.get("max_position_embeddings") or (
        text.get("max_position_embeddings") if isinstance(text, dict) else None
    )
    own = folder / "sentence_bert_config.json"
    if embeds and own.is_file():
        limit = weight_files.json_object(own).get("max_seq_length") or limit
    return limit if isinstance(limit, int) and limit > 0 else 4096
