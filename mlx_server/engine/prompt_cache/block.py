"""Keys and values of consecutive tokens, of all layers, as raw numbers in numpy arrays. Pure.

Arrays of the same shape and type (usually all of them) form one group, so that a block has few arrays and
copying is fast. Numbers are stored as unsigned integers of the same width, because numpy has no bfloat16.
Nothing is computed with them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mlx_server.engine.prompt_cache.blob import Corrupt, Tensor

Array = np.ndarray[Any, np.dtype[Any]]
RAW = {
    **{"F32": "<u4", "U32": "<u4", "I32": "<u4", "F16": "<u2", "BF16": "<u2", "U16": "<u2", "I16": "<u2"},
    **{"U8": "u1", "I8": "u1", "BOOL": "u1", "I64": "<u8", "U64": "<u8"},
}
"""By safetensors' type: numpy's unsigned integer type of the same width."""


@dataclass(frozen=True)
class Block:
    """The keys and values of the consecutive tokens `ids`. Each layer has an array of keys and an array of
    values, or three of each if they are quantized. Arrays with the same number of heads, width and type are
    stacked to a group, which is an array of shape (arrays, heads, tokens, width).

    `order` has one number for each array, layer by layer, keys before values: the index of the array's group
    in `groups`. Within a group, the arrays are also stacked layer by layer, keys before values. `dtypes` are
    safetensors' names of the groups' types.
    """

    ids: tuple[int, ...]
    groups: tuple[Array, ...]
    dtypes: tuple[str, ...]
    order: tuple[int, ...]

    @property
    def tokens(self) -> int:
        return len(self.ids)

    @property
    def nbytes(self) -> int:
        return sum(group.nbytes for group in self.groups)

    def fits(self, other: Block) -> bool:
        """Return True if `other` has the same layers, shapes and types, so that both blocks can belong to one
        sequence.
        """
        return (self.dtypes, self.order, self._widths()) == (other.dtypes, other.order, other._widths())

    def _widths(self) -> list[tuple[int, ...]]:
        return [group.shape[:2] + group.shape[3:] for group in self.groups]

    def parts(self) -> list[Array]:
        """Return the arrays of keys and values, of shape (heads, tokens, width), layer by layer, keys before
        values. They are views of the arrays in `groups`.
        """
        parts = [iter(group) for group in self.groups]
        return [next(parts[number]) for number in self.order]

    def head(self, tokens: int) -> Block:
        """Return a copy of the block's first `tokens` tokens."""
        groups = tuple(group[:, :, :tokens].copy() for group in self.groups)
        return Block(self.ids[:tokens], groups, self.dtypes, self.order)


@dataclass(frozen=True)
class BlockRun:
    """Consecutive blocks of one sequence, from the beginning of a prompt."""

    blocks: tuple[Block, ...]

    @property
    def ids(self) -> tuple[int, ...]:
        return tuple(token for block in self.blocks for token in block.ids)

    @property
    def tokens(self) -> int:
        return sum(block.tokens for block in self.blocks)

    @property
    def nbytes(self) -> int:
        return sum(block.nbytes for block in self.blocks)


def block_of(ids: Sequence[int], parts: Sequence[Array], dtypes: Sequence[str]) -> Block:
    """Copy the arrays `parts` of all layers, (heads, tokens, width) each, into one block. `ids` are their
    tokens, and `dtypes` safetensors' types of the arrays.
    """
    groups: dict[tuple[int, int, str], list[Array]] = {}
    order: list[int] = []
    for part, dtype in zip(parts, dtypes, strict=True):
        kind = (part.shape[0], part.shape[2], dtype)
        groups.setdefault(kind, []).append(part)
        order.append(list(groups).index(kind))
    names = tuple(dtype for _, _, dtype in groups)
    return Block(tuple(ids), tuple(np.stack(group) for group in groups.values()), names, tuple(order))


def common_prefix_length(one: Sequence[int], other: Sequence[int]) -> int:
    """Return how many tokens at the beginning of both sequences are equal."""
    pairs = zip(one, other, strict=False)
    return next((at for at, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))


def to_tensors(block: Block) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors and the metadata for the block's file."""
    parts = zip(block.groups, block.dtypes, strict=True)
    tensors = {
        f"group.{number}": Tensor(dtype, group.shape, group.reshape(-1).view(np.uint8).data)
        for number, (group, dtype) in enumerate(parts)
    }
    return tensors, {"order": text_of(block.order), "tokens": text_of(block.ids)}


def from_tensors(tensors: Mapping[str, Tensor], facts: Mapping[str, str]) -> Block:
    """Return the block in a file with these tensors and metadata. Raises Corrupt if they do not
    form a block.
    """
    try:
        order, ids = numbers_of(facts["order"]), numbers_of(facts["tokens"])
        parts = [tensors[f"group.{number}"] for number in range(len(tensors))]
        groups = tuple(array_of(part) for part in parts)
    except (KeyError, ValueError, TypeError) as error:
        raise Corrupt(f"its tensors are not a block's: {error!r}") from error
    # Each group must have as many arrays as `order` takes from it.
    shapes = [(order.count(number), 4, len(ids)) for number in range(len(groups))]
    if not groups or shapes != [(len(group), group.ndim, *group.shape[2:3]) for group in groups]:
        raise Corrupt("its tensors do not match its tokens")
    return Block(ids, groups, tuple(part.dtype for part in parts), order)


def text_of(numbers: Sequence[int]) -> str:
    return ",".join(map(str, numbers))


def numbers_of(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split(",")))


def array_of(tensor: Tensor) -> Array:
    """Return an array of the tensor's shape that is a view of `tensor.data`, so that nothing is copied. Each
    number appears as the unsigned integer with the same bytes. Raises KeyError, ValueError or TypeError if
    the tensor's type is unknown, or its shape does not match its data.
    """
    return np.frombuffer(tensor.data, dtype=RAW[tensor.dtype]).reshape(tensor.shape)
