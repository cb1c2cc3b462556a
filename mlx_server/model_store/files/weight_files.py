"""Read and check a model's files without mlx: config.json, the headers of its weight files, and their index.

A safetensors file consists of the header's length (8 bytes), a header in JSON, and data. The header states
where each tensor lies up to the last byte, so a file that is truncated or of another kind is detected without
reading its data.
"""

from __future__ import annotations

import contextlib
import json
import math
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mlx_server.model_store.errors import DAMAGE
from vestal.platform.exhaustion import raise_if_exhausted

INDEX = "model.safetensors.index.json"
_MAX_HEADER_BYTES = 100_000_000
_BITS = {
    **dict.fromkeys(("F64", "I64", "U64", "C64"), 64),
    **dict.fromkeys(("F32", "I32", "U32"), 32),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 16),
    **dict.fromkeys(("F8_E4M3", "F8_E5M2", "F8_E8M0", "I8", "U8", "BOOL"), 8),
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    "F4": 4,
}


class UnreadableModel(Exception):
    """A folder does not hold a model that can be loaded; the text names the file and the fault."""

    def within(self, folder: Path) -> str:
        """Return the text as part of a sentence about `folder`: files in it are named without its path."""
        return str(self).removeprefix(f"{folder}: ").replace(f"{folder}/", "")


@contextlib.contextmanager
def damage_explained(path: Path) -> Iterator[None]:
    """Raise UnreadableModel, which names `path`, in place of an error of the `with` block that has a type in
    DAMAGE: the types of the errors that reading a damaged file can raise. An error that comes from a lack of
    descriptors or memory is not changed.
    """
    try:
        yield
    except DAMAGE as error:
        raise_if_exhausted(error)
        raise UnreadableModel(f"{path}: {type(error).__name__}: {str(error)[:200]}") from error


def read_config(folder: Path) -> dict[str, Any]:
    """Return the model's config.json. Raises UnreadableModel if the file is missing or not a JSON object."""
    return read_json_object(folder / "config.json")


def read_headers(folder: Path) -> dict[str, Any]:
    """Return the header entry of each tensor in the folder's weight files, by the tensor's name. Raises
    UnreadableModel if a file is damaged.
    """
    found: dict[str, Any] = {}
    for path in weight_files(folder):
        found.update(read_header(path)[1])
    return found


def weight_files(folder: Path) -> list[Path]:
    """Return the files in `folder` from which mlx-lm reads weights, sorted by name."""
    return sorted(folder.glob("model*.safetensors"))


def is_weight_file(name: str) -> bool:
    """Return True if mlx-lm reads weights from a file of this name."""
    return name.startswith("model") and name.endswith(".safetensors")


def verify(folder: Path) -> None:
    """Check a model's configuration, the headers of its weight files and their index, without reading the
    weights.

    Raises UnreadableModel if a file is missing or damaged.
    """
    with damage_explained(folder):
        read_config(folder)
        by_file = {path.name: read_header(path)[1] for path in weight_files(folder)}
        if not any(by_file.values()):
            raise UnreadableModel(f"{folder}: no weights in model*.safetensors")
        check_index(folder, by_file)


def check_index(folder: Path, by_file: dict[str, dict[str, Any]]) -> None:
    """Raise UnreadableModel if the folder's model.safetensors.index.json names a weight file or tensor that
    is missing, or a `total_size` that is not the sum of the tensors' sizes. Do nothing without an index.

    `by_file` maps the names of the weight files to their parsed headers.
    """
    path = folder / INDEX
    if not path.is_file():
        return
    index = read_json_object(path)
    places = index.get("weight_map")
    if not isinstance(places, dict):
        raise UnreadableModel(f"{path}: it has no weight_map")
    named = {str(file) for file in places.values()}
    missing = sorted(named - by_file.keys())
    if missing:
        lacking = f"{len(missing)} of {len(named)} files are missing: {', '.join(missing[:3])}"
        raise UnreadableModel(f"{folder}: {lacking}; fetch the model again")
    misplaced = next((name for name, file in places.items() if name not in by_file[file]), None)
    if misplaced is not None:
        where = folder / places[misplaced]
        raise UnreadableModel(f"{where}: the index says that it holds tensor {misplaced}, and it does not")
    metadata = index.get("metadata")
    total = metadata.get("total_size") if isinstance(metadata, dict) else None
    stored = sum(stored_bytes(by_file[file][name]) for name, file in places.items())
    if isinstance(total, (int, float)) and abs(total - stored) >= 1:
        raise UnreadableModel(
            f"{path}: the weights hold {stored} bytes, and its total_size says {total}; "
            "fetch the model again, or take total_size out if you made the files yourself"
        )


def read_json_object(path: Path) -> dict[str, Any]:
    """Return the JSON object in the file `path`. Raises UnreadableModel if it cannot be read or is not a JSON
    object.
    """
    content = read_json(path)
    if not isinstance(content, dict):
        raise UnreadableModel(f"{path}: not a JSON object")
    return content


def read_json(path: Path) -> Any:
    """Return the JSON value in the file `path`. Raises UnreadableModel if it cannot be read or is not
    JSON.
    """
    try:
        return json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise_if_exhausted(error)
        raise UnreadableModel(f"{path}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise UnreadableModel(f"{path}: not JSON ({str(error)[:100]})") from error


def read_header(path: Path) -> tuple[bytes, dict[str, Any]]:
    """Return a safetensors file's header in two forms: the bytes of its JSON, without the length before them;
    and parsed, without the entry `__metadata__`. Raises UnreadableModel if the file cannot be read, is
    damaged or is truncated.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(8)
            if len(start) < 8:
                raise ValueError(f"cut off: {size} bytes")
            (length,) = struct.unpack("<Q", start)
            if length > min(_MAX_HEADER_BYTES, size - 8):
                raise ValueError(f"not a safetensors file, or cut off: a header of {length} bytes in {size}")
            raw = file.read(length)
        parsed = json.loads(raw)
        if not isinstance(parsed, dict):
            raise ValueError("its header is not a JSON object")
        parsed.pop("__metadata__", None)
        _check(parsed, size - 8 - length)
    except UnicodeDecodeError as error:
        raise UnreadableModel(f"{path}: its header is not text") from error
    except DAMAGE as error:
        raise_if_exhausted(error)
        reason = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise UnreadableModel(f"{path}: {reason[:200]}") from error
    return raw, parsed


def _check(entries: dict[str, Any], data_bytes: int) -> None:
    """Raise ValueError if a tensor's offsets or dimensions are not possible, its size does not match its
    shape and type, or the file has too few or too many bytes of data.
    """
    for name, entry in entries.items():
        bits, shape, (start, end) = _BITS.get(entry["dtype"]), entry["shape"], entry["data_offsets"]
        if not _are_sizes(start, end) or start > end:
            raise ValueError(f"tensor {name} has the offsets {str(entry['data_offsets'])[:80]}")
        if not _are_sizes(*shape):
            raise ValueError(f"tensor {name} has the shape {str(shape)[:80]}")
        stored_bits, weights = (end - start) * 8, math.prod(shape)
        if weights > stored_bits if bits is None else weights * bits != stored_bits:
            raise ValueError(
                f"tensor {name} has {stored_bits // 8} bytes for {entry['dtype']} {str(shape)[:80]}"
            )
    end = max((entry["data_offsets"][1] for entry in entries.values()), default=0)
    if data_bytes < end:
        raise ValueError(f"cut off: {data_bytes} of {end} bytes of data")
    if data_bytes > end:
        raise ValueError(f"{data_bytes - end} bytes too many")


def _are_sizes(*values: Any) -> bool:
    """Return True if all values are whole numbers from 0."""
    return all(type(value) is int and value >= 0 for value in values)


def stored_bytes(entry: dict[str, Any]) -> int:
    """Return how many bytes a tensor takes in its file; `entry` is its entry in the header."""
    start, end = entry["data_offsets"]
    return int(end) - int(start)
