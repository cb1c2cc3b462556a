"""Tell from a GGUF file's header alone what the file holds, and whether it can be converted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlx_server.model_store.gguf.config import model_config, sizes_of
from mlx_server.model_store.gguf.families import Family, Placed, family_of, place_tensors
from mlx_server.model_store.gguf.reader import Header, Tensor, read_floats, read_header
from mlx_server.model_store.gguf.tokenizer import check_type

GROUP = 32
_ROPE_FACTORS = ("rope_freqs", "rope_factors_long", "rope_factors_short")


@dataclass(frozen=True)
class Plan:
    """How a GGUF file is converted.

    `header` is the file's header. `config` is the content of the MLX model's config.json, without the
    quantization. `family` says how the tensors of the file's architecture differ from the MLX model's, and
    `placed` are the tensors that are converted, each with its name in the MLX model. `leaves_out_images` is
    True if the file also has an image encoder, which is not converted.
    """

    header: Header
    config: dict[str, Any]
    family: Family
    placed: list[Placed]
    leaves_out_images: bool

    def bytes_of(self, placed: Placed, *, dense: bool) -> int:
        """Return how many bytes a tensor takes once it is converted: in float32 if `dense`, else quantized,
        or in 16 bits a weight if the GGUF file does not quantize it.
        """
        return stored_bytes(placed.tensor, dense=dense)

    def total_bytes(self, *, dense: bool) -> int:
        """Return how many bytes all tensors together take once they are converted: in float32 if `dense`,
        else quantized, or in 16 bits a weight if the GGUF file does not quantize them.
        """
        return sum(self.bytes_of(placed, dense=dense) for placed in self.placed)


def plan(path: Path, *, keep_arrays: bool = True) -> Plan:
    """Return how the file would be converted. Raises UnsupportedGguf, which says why, if it cannot be
    converted, and OSError if it cannot be read.

    Without `keep_arrays`, the tokenizer's tokens are not read, which takes less time.
    """
    header = read_header(path, keep_arrays=keep_arrays)
    architecture = header.metadata.get("general.architecture")
    family = family_of(architecture)
    found = {name: header.tensors.get(f"{name}.weight") for name in _ROPE_FACTORS}
    config = model_config(header, {name: read_floats(path, each) for name, each in found.items() if each})
    placed, images = place_tensors(
        str(architecture), header.tensors.values(), sizes_of(config), config["num_hidden_layers"]
    )
    check_type(header.metadata)
    return Plan(header, config, family, placed, bool(images))


def stored_bytes(tensor: Tensor, *, dense: bool) -> int:
    """Return how many bytes a tensor takes once it is converted: in float32 if `dense`, else quantized, or in
    16 bits a weight if the GGUF file does not quantize it.

    A quantized tensor's scales and biases, 16 bits each, are included.
    """
    if dense:
        return tensor.weights * 4
    if tensor.type.bits is None:
        return tensor.weights * 2
    return tensor.weights * tensor.type.bits // 8 + tensor.weights // GROUP * 4


def main_type(tensors: Sequence[Tensor]) -> str:
    """Return the type that takes the most bytes in the tensors, such as `Q4_K`; "" without tensors."""
    sizes: dict[str, int] = {}
    for tensor in tensors:
        sizes[tensor.type.name] = sizes.get(tensor.type.name, 0) + tensor.bytes
    return max(sizes, key=lambda name: sizes[name], default="")
