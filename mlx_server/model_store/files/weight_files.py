"""Reads and checks a model's small facts without mlx: config.json, the headers of its weights, their index.

A safetensors file is 8 bytes of header length, a header in JSON, and data that the header accounts for to the
last byte: a file that was cut off, or filled with something else, shows without its data being read.
"""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path
from typing import Any

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
    """The folder is no model that can be loaded; the text says why."""


def config(folder: Path) -> dict[str, Any]:
    """The model's configuration. Raises UnreadableModel."""
    return json_object(folder / "config.json")


def headers(folder: Path) -> dict[str, Any]:
    """Every tensor's entry, by name. Raises UnreadableModel where a file is not whole."""
    found: dict[str, Any] = {}
    for path in weight_files(folder):
        found.update(header(path)[1])
    return found


def weight_files(folder: Path) -> list[Path]:
    """The files that mlx-lm reads weights from."""
    return sorted(folder.glob("model*.safetensors"))


def verify(folder: Path) -> None:
    """The whole check, nothing of the data read. Raises UnreadableModel, naming the file and the fault."""
    config(folder)
    by_file = {path.name: header(path)[1] for path in weight_files(folder)}
    if not any(by_file.values()):
        raise UnreadableModel(f"{folder}: no weights in model*.safetensors")
    check_index(folder, by_file)


def check_index(folder: Path, by_file: dict[str, dict[str, Any]]) -> None:
    """Does the folder hold what its index names? `by_file` are the headers. Raises UnreadableModel."""
    path = folder / INDEX
    if not path.is_file():
        return
    index = json_object(path)
    places = index.get("weight_map")
    if not isinstance(places, dict):
        raise UnreadableModel(f"{path}: it has no weight_map")
    missing = sorted({str(file) for file in places.values()} - by_file.keys())
    if missing:
        lacking = f"{len(missing)} of {len(set(places.values()))} files are missing: {', '.join(missing[:3])}"
        raise UnreadableModel(f"{folder}: {lacking}; fetch the model again")
    astray = next((name for name, file in places.items() if name not in by_file[file]), None)
    if astray is not None:
        raise UnreadableModel(f"{folder / places[astray]}: tensor {astray} is not in it, as the index says")
    metadata = index.get("metadata")
    total = metadata.get("total_size") if isinstance(metadata, dict) else None
    held = sum(_stored(by_file[file][name]) for name, file in places.items())
    if isinstance(total, (int, float)) and int(total) != held:
        raise UnreadableModel(
            f"{path}: the weights hold {held} bytes, and its total_size says {int(total)}; "
            "fetch the model again, or take total_size out if you made the files yourself"
        )


def json_object(path: Path) -> dict[str, Any]:
    """The JSON object in `path`. Raises UnreadableModel."""
    try:
        content = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise UnreadableModel(f"{path}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise UnreadableModel(f"{path}: not JSON ({str(error)[:100]})") from error
    if not isinstance(content, dict):
        raise UnreadableModel(f"{path}: not a JSON object")
    return content


def header(path: Path) -> tuple[bytes, dict[str, Any]]:
    """A safetensors file's header, raw and parsed, checked against the file. Raises UnreadableModel."""
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
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise UnreadableModel(f"{path}: {reason[:200]}") from error
    return raw, parsed


def _check(entries: dict[str, Any], data_bytes: int) -> None:
    for name, entry in entries.items():
        bits = _BITS.get(entry["dtype"])
        if bits is not None and math.prod(entry["shape"]) * bits != _stored(entry) * 8:
            raise ValueError(
                f"tensor {name} has {_stored(entry)} bytes for {entry['dtype']} {entry['shape']}"
            )
    end = max((entry["data_offsets"][1] for entry in entries.values()), default=0)
    if data_bytes < end:
        raise ValueError(f"cut off: {data_bytes} of {end} bytes of data")
    if data_bytes > end:
        raise ValueError(f"{data_bytes - end} bytes too many")


def _stored(entry: dict[str, Any]) -> int:
    start, end = entry["data_offsets"]
    return int(end) - int(start)
