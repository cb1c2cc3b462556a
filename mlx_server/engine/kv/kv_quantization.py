"""How a language model's keys and values are kept: in the numbers they came as, or in fewer bits. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class KvQuantization:
    """`bits` for each number, and a scale and a bias for each `group_size` of them in a head's row."""

    bits: int
    group_size: int

    def bytes_a_number(self, number_bytes: int) -> float:
        """What one takes in the mean, its share of scale and bias (of `number_bytes` each) included."""
        return self.bits / 8 + 2 * number_bytes / self.group_size

    def divides(self, head_dim: int) -> bool:
        """Whether a head's row can be cut into groups."""
        return head_dim % self.group_size == 0


KvOf = Callable[[str], KvQuantization | None]
"""What the configuration says for a model, by its canonical name; None: keys and values stay as computed."""


def as_computed(model: str) -> None:
    """For engines that quantize nothing."""


def tags(quantization: KvQuantization | None) -> dict[str, str]:
    """As the prompt cache's files tell it."""
    if quantization is None:
        return {"kv_bits": "none", "kv_group_size": "none"}
    return {"kv_bits": str(quantization.bits), "kv_group_size": str(quantization.group_size)}
