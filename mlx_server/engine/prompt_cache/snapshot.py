"""A model's whole state after some tokens, for caches that cannot be cut into blocks (rotating caches,
arrays). Pure.

A state is valid only after exactly these tokens, so only a prompt that begins with all of them can use it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from mlx_server.engine.prompt_cache.blob import Corrupt, Tensor
from mlx_server.engine.prompt_cache.block import Array, array_of, numbers_of, text_of


@dataclass(frozen=True)
class Snapshot:
    """A model's state after the tokens `ids`.

    `tree` is JSON with the class and state of each layer's cache, in which `{"array": N}` stands for
    `arrays[N]`. `dtypes` are safetensors' types of the arrays.
    """

    ids: tuple[int, ...]
    arrays: tuple[Array, ...]
    dtypes: tuple[str, ...]
    tree: str

    @property
    def tokens(self) -> int:
        return len(self.ids)

    @property
    def nbytes(self) -> int:
        return sum(array.nbytes for array in self.arrays)


def to_tensors(snapshot: Snapshot) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors and the metadata for the snapshot's file."""
    parts = zip(snapshot.arrays, snapshot.dtypes, strict=True)
    tensors = {
        f"array.{number}": Tensor(dtype, array.shape, array.reshape(-1).view(np.uint8).data)
        for number, (array, dtype) in enumerate(parts)
    }
    return tensors, {"tree": snapshot.tree, "tokens": text_of(snapshot.ids)}


def from_tensors(tensors: Mapping[str, Tensor], facts: Mapping[str, str]) -> Snapshot:
    """Return the snapshot in a file with these tensors and metadata. Raises Corrupt if they do not form a
    snapshot.
    """
    try:
        parts = [tensors[f"array.{number}"] for number in range(len(tensors))]
        arrays = tuple(array_of(part) for part in parts)
        json.loads(facts["tree"])
        return Snapshot(
            numbers_of(facts["tokens"]), arrays, tuple(part.dtype for part in parts), facts["tree"]
        )
    except (KeyError, ValueError, TypeError) as error:
        raise Corrupt(f"its tensors are not a snapshot's: {error!r}") from error
