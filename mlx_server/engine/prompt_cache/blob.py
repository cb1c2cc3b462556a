"""Encode a block as a safetensors file, with a checksum over all its contents in the metadata. Pure.

    8 bytes    the header's length N, little-endian
    N bytes    the header: JSON, name → dtype, shape, data_offsets; and __metadata__, strings only
    the rest   the tensors' data

The checksum is needed because safetensors and mlx-lm's loader do not notice a flipped bit. It is CRC-32,
which is as fast as copying, and detects every error of a few bits.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

CHECKSUM = "checksum"
_MAX_HEADER_BYTES = 16 << 20


class Corrupt(Exception):
    """Raised if bytes are not the content of an undamaged file of the prompt cache. The message says why."""


@dataclass(frozen=True)
class Tensor:
    """One array of a file. `dtype` is safetensors' name of the type (F32, BF16, U8, …). `data` is in C order,
    little-endian.
    """

    dtype: str
    shape: tuple[int, ...]
    data: bytes | memoryview


def encode(tensors: Mapping[str, Tensor], facts: Mapping[str, str]) -> list[bytes | memoryview]:
    """Return the bytes of a file with `tensors` and the metadata `facts`, in several parts to be written one
    after another.
    """
    header: dict[str, Any] = {}
    at = 0
    for name, tensor in tensors.items():
        end = at + len(tensor.data)
        header[name] = _spec(tensor, at, end)
        at = end
    parts = [tensor.data for tensor in tensors.values()]
    text = _header(header, facts, _checksum(header, facts, parts))
    return [len(text).to_bytes(8, "little"), text, *parts]


def file_bytes(tensors: Mapping[str, Tensor], facts: Mapping[str, str]) -> int:
    """Return an upper bound of the length, in bytes, of the file that `encode` makes of `tensors` and the
    metadata `facts`. The tensors' data are not read for this.
    """
    data = sum(len(tensor.data) for tensor in tensors.values())
    widest = {name: _spec(tensor, data, data) for name, tensor in tensors.items()}
    return 8 + len(_header(widest, facts, "0" * 8)) + data


def _spec(tensor: Tensor, begin: int, end: int) -> dict[str, Any]:
    return {"dtype": tensor.dtype, "shape": list(tensor.shape), "data_offsets": [begin, end]}


def _header(table: Mapping[str, Any], facts: Mapping[str, str], checksum: str) -> bytes:
    whole = {**table, "__metadata__": {**facts, CHECKSUM: checksum}}
    text = json.dumps(whole, separators=(",", ":")).encode()
    return text + b" " * (-len(text) % 8)  # the format requires aligned data


def decode(blob: bytes) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Return the metadata and the tensors of a file. The tensors refer to the memory of `blob`. Raises
    Corrupt if the format or the checksum is wrong.
    """
    header, data = _split(blob)
    try:
        facts = dict(header.pop("__metadata__"))
        stored_checksum = facts.pop(CHECKSUM)
        spans = sorted(header.items(), key=lambda item: item[1]["data_offsets"])
        tensors = {
            name: Tensor(
                spec["dtype"], tuple(spec["shape"]), data[spec["data_offsets"][0] : spec["data_offsets"][1]]
            )
            for name, spec in spans
        }
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise Corrupt(f"its header is not a block's header: {error!r}") from error
    if stored_checksum != _checksum(header, facts, [data]):
        raise Corrupt("its checksum is wrong")
    return facts, tensors


def read_facts(file: BinaryIO) -> dict[str, str]:
    """Return only a file's metadata, without reading the whole file or comparing its checksum. Raises Corrupt
    if the format is wrong, and OSError if the file cannot be read.
    """
    length = file.read(8)
    size = int.from_bytes(length, "little")
    if size > _MAX_HEADER_BYTES:
        raise Corrupt("it is truncated, or not a safetensors file")
    facts = _split(length + file.read(size))[0].get("__metadata__")
    if not isinstance(facts, dict):
        raise Corrupt("its header is not a block's header")
    return facts


def _split(blob: bytes) -> tuple[dict[str, Any], memoryview]:
    size = int.from_bytes(blob[:8], "little")
    if len(blob) < 8 or size > min(len(blob) - 8, _MAX_HEADER_BYTES):
        raise Corrupt("it is truncated, or not a safetensors file")
    try:
        header = json.loads(blob[8 : 8 + size])
    except (ValueError, RecursionError) as error:
        raise Corrupt(f"its header is not JSON: {error}") from error
    if not isinstance(header, dict):
        raise Corrupt("its header is not an object")
    return header, memoryview(blob)[8 + size :]


def _checksum(
    header: Mapping[str, Any], facts: Mapping[str, str], parts: Sequence[bytes | memoryview]
) -> str:
    table = {name: spec for name, spec in header.items() if name != "__metadata__"}
    checksum = zlib.crc32(json.dumps([table, dict(facts)], sort_keys=True).encode())
    for part in parts:
        checksum = zlib.crc32(part, checksum)
    return f"{checksum:08x}"
