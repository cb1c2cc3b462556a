"""The setting that stores keys and values in fewer bits than they are computed in. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class KvQuantization:
    """How keys and values are quantized: each number takes `bits`, and each `group_size` numbers of a head
    share a scale and a bias.
    """

    bits: int
    group_size: int

    def bytes_per_number(self, unquantized_bytes: int) -> float:
        """Return the mean bytes of a quantized number, with its share of the group's scale and bias, which
        take `unquantized_bytes` each.
        """
        return self.bits / 8 + 2 * unquantized_bytes / self.group_size

    def divides(self, head_dim: int) -> bool:
        """Return whether a head of this dimension can be divided into whole groups."""
        return head_dim % self.group_size == 0


KvQuantizationOf = Callable[[str], KvQuantization | None]
"""Returns how the KV cache of a model, given by its canonical name, is to be quantized; None: not at all."""


def never_quantized(model: str) -> None:
    """Return None, which means that the KV cache of `model` is not quantized. This is the default value of
    settings that hold a function from a model's name to the quantization of its KV cache.
    """


def tags(quantization: KvQuantization | None) -> dict[str, str]:
    """Return the setting as metadata for the files of the prompt cache: `kv_bits` and `kv_group_size`, both
    `none` without quantization.
    """
    if quantization is None:
        return {"kv_bits": "none", "kv_group_size": "none"}
    return {"kv_bits": str(quantization.bits), "kv_group_size": str(quantization.group_size)}
