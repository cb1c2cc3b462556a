"""Compute from the headers of a model's weight files how many weights it has, and of which type."""

from __future__ import annotations

import math
from typing import Any

from mlx_server.model_store.files.weight_files import stored_bytes


def parameters(name: str, entry: dict[str, Any], headers: dict[str, Any], group_size: int) -> int:
    """Return the number of weights that a tensor stands for.

    A quantized tensor packs several weights into one number, so its weights are counted by its scales, of
    which there is one per group. The scales and biases themselves count as 0.
    """
    stem, _, last = name.rpartition(".")
    scales = headers.get(f"{stem}.scales")
    if scales is None:
        return math.prod(entry["shape"])
    return math.prod(scales["shape"]) * group_size if last == "weight" else 0


def quantization_of(config: dict[str, Any]) -> tuple[int | None, int]:
    """Return the bits per weight (None if the model is not quantized) and the number of weights in a
    group.
    """
    quantization = config.get("quantization")
    found = quantization if isinstance(quantization, dict) else {}
    bits, group_size = found.get("bits"), found.get("group_size", 64)
    return (bits if isinstance(bits, int) and bits > 0 else None), int(group_size)


def most_common_dtype(headers: dict[str, Any]) -> str:
    """Return the type that takes the most bytes in the weights, such as `BF16`."""
    bytes_by_dtype: dict[str, int] = {}
    for entry in headers.values():
        bytes_by_dtype[entry["dtype"]] = bytes_by_dtype.get(entry["dtype"], 0) + stored_bytes(entry)
    return max(bytes_by_dtype, key=lambda dtype: bytes_by_dtype[dtype])
