"""Compute from the headers of a model's weight files how many weights it has, and of which type."""

from __future__ import annotations

import math
from typing import Any

from mlx_server.model_store.files.weight_files import stored_bytes


def parameters(name: str, entry: dict[str, Any], headers: dict[str, Any], group_size: int) -> int:
    """Return the number of weights that the tensor `name` stands for. `headers` maps the names of the model's
    tensors to their entries in the safetensors headers, and `entry` is the entry of this tensor.

    A quantized tensor packs several weights into one number, so its weights are counted as the number of its
    scales times `group_size`, the number of weights that share a scale. The other tensors of a quantized
    layer, such as the scales, count as 0.
    """
    stem, _, last = name.rpartition(".")
    scales = headers.get(f"{stem}.scales")
    if scales is None:
        return math.prod(entry["shape"])
    return math.prod(scales["shape"]) * group_size if last == "weight" else 0


def quantization_of(config: dict[str, Any]) -> tuple[int | None, int]:
    """Return the bits per weight and the number of weights in a group, from the model's config.json. The bits
    are None if the model is not quantized. The group size is 64 if `config` names none.

    Raises TypeError, ValueError or OverflowError if the group size cannot be converted to an integer.
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
