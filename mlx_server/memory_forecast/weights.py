"""Forecast how much memory a model's weights take, from the headers of its files. Pure.

On Metal, weights are stored in memory as they are on disk, quantized or not. MLX's CPU build converts them to
dense float32, so a 4-bit model takes eight times the size of its file. The weights that encode images are
loaded only if the model serves images; those for audio are never loaded.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Headers = Mapping[str, Mapping[str, Any]]
"""Maps the name of each tensor to its entry in a safetensors header: dtype, shape, data_offsets."""

SLICE_BYTES = 16 * 1024 * 1024
"""How many bytes of weights are read in one slice."""

IN_FLIGHT_BYTES = 4 * SLICE_BYTES
"""How many bytes of slices are being read and converted at once, before the next slice waits."""

_NUMBER_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
_EIGHT_BIT_FLOATS = frozenset({"F8_E4M3", "F8_E5M2"})
_PACKED = frozenset({"U8", "U32", "I32"})
_NOT_LOADED = ("audio_tower.", "mtp.")
_OF_IMAGES = ("vision_tower.", "vision_model.", "visual.", "multi_modal_projector.", "connector.")


@dataclass(frozen=True)
class Arithmetic:
    """How MLX computes on this machine.

    `dense_float32`: weights are converted to float32 while they are loaded (CPU). `fused_attention`:
    attention scores are never stored (Metal).
    """

    dense_float32: bool
    fused_attention: bool


@dataclass(frozen=True)
class Weights:
    """How many bytes the weights of a model take in memory.

    While the weights are read, `loading_bytes` more are needed. `number_bytes` is the width of a number in
    computations, and therefore in the KV cache.
    """

    bytes: int
    loading_bytes: int
    number_bytes: int


def forecast_weights(
    headers: Headers, config: Mapping[str, Any], arithmetic: Arithmetic, reads_images: bool = False
) -> Weights:
    """Return how much memory a model's weights take, from its config.json and the `headers` of its
    safetensors files. `arithmetic` says how MLX computes on the machine, such as whether weights are
    converted to float32. The weights that encode images count only if `reads_images`.

    Raises KeyError, TypeError or ValueError if the headers are invalid.
    """
    left_out = _NOT_LOADED if reads_images else (*_NOT_LOADED, *_OF_IMAGES)
    kept = {name: entry for name, entry in headers.items() if not _starts(name, left_out)}
    sizes = {name: _loaded_bytes(name, entry, kept, config, arithmetic) for name, entry in kept.items()}
    largest = max(sizes.values(), default=0)
    of_text = {name: entry for name, entry in kept.items() if not _starts(name, _OF_IMAGES)}
    number = 4 if arithmetic.dense_float32 else _number_bytes(of_text)
    # Until its slice is done, a converted tensor is in memory in its form on disk, too, which has at most
    # half the size.
    converted = arithmetic.dense_float32 and any(entry["dtype"] != "F32" for entry in kept.values())
    total = sum(sizes.values())
    in_flight = min(max(largest, IN_FLIGHT_BYTES), max(total, SLICE_BYTES))  # at most the whole model
    return Weights(total, in_flight if converted else SLICE_BYTES, number)


def _starts(name: str, beginnings: tuple[str, ...]) -> bool:
    return name.removeprefix("model.").startswith(beginnings)


def stored_bytes(entry: Mapping[str, Any]) -> int:
    """Return how many bytes a tensor takes on disk; `entry` is its entry in a safetensors header."""
    start, end = entry["data_offsets"]
    return int(end) - int(start)


def _loaded_bytes(
    name: str, entry: Mapping[str, Any], headers: Headers, config: Mapping[str, Any], arithmetic: Arithmetic
) -> int:
    dtype, stored = str(entry["dtype"]), stored_bytes(entry)
    if not arithmetic.dense_float32:
        # mlx-lm converts eight-bit floats that it cannot keep to bfloat16.
        return stored * 2 if dtype in _EIGHT_BIT_FLOATS and not _packed_floats(config) else stored
    stem, _, last = name.rpartition(".")
    if dtype in _PACKED and (bits := _bits(stem, last, headers, config)):
        return stored * 8 * 4 // bits
    if last in ("scales", "biases", "qzeros") and _is_quantized(stem, headers):
        return 0
    if dtype in _NUMBER_BYTES or dtype in _EIGHT_BIT_FLOATS:
        return math.prod(entry["shape"]) * 4
    return stored


def _is_quantized(stem: str, headers: Headers) -> bool:
    packed = (headers.get(f"{stem}.{last}") for last in ("weight", "qweight"))
    return any(entry is not None and entry["dtype"] in _PACKED for entry in packed)


def _bits(stem: str, last: str, headers: Headers, config: Mapping[str, Any]) -> int:
    """Return how many bits each number of the packed weight `stem`.`last` has; 0 if the tensor's integers are
    not packed weights.
    """
    if last not in ("weight", "qweight") or not any(f"{stem}.{s}" in headers for s in ("scales", "qzeros")):
        return 0
    for key in ("quantization", "quantization_config"):
        whole = config.get(key)
        if isinstance(whole, dict):
            own = whole.get(stem)
            bits = (own if isinstance(own, dict) else whole).get("bits") or whole.get("bits")
            if isinstance(bits, int) and bits > 0:
                return bits
    return 4


def _packed_floats(config: Mapping[str, Any]) -> bool:
    quantization = config.get("quantization_config")
    return isinstance(quantization, dict) and quantization.get("scale_fmt") == "ue8m0"


def _number_bytes(headers: Headers) -> int:
    """Return how many bytes each number of the activations and of the KV cache takes: as many as a weight of
    the widest norm, because a norm in float32 makes everything computed after it float32. If `headers` has no
    norm, return the width of the widest floats in it; 2 if it has no floats.
    """
    floats = {name: str(e["dtype"]) for name, e in headers.items() if e["dtype"] in _NUMBER_BYTES}
    norms = [dtype for name, dtype in floats.items() if "norm" in name]
    return max((_NUMBER_BYTES[dtype] for dtype in norms or floats.values()), default=2)
