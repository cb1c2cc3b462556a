"""Keys and values for tests of the prompt cache: a function of the prefix, so a wrong value is detected."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mlx_server.engine.prompt_cache.block import Block, BlockRun
from mlx_server.engine.prompt_cache.disk.folder import BlockFolder
from mlx_server.engine.prompt_cache.keys import PrefixKeys
from mlx_server.engine.prompt_cache.snapshot import Snapshot
from mlx_server.engine.prompt_cache.store import BlockStore

SIZE = 4
BLOCK_BYTES = SIZE * 2 * 4 * 2
TAGS = {"identity": "model", "model": "m:1"}
PROMPT, OTHER_PROMPT = list(range(22)), list(range(100, 122))
WHOLE = 20
"""How many of the tokens of PROMPT are in whole blocks."""
MANY = 1 << 20


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class RecordingFolder(BlockFolder):
    """A folder that lists the keys of the files that were read in `reads`."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.reads = list[str]()

    def read(self, key: str) -> bytes:
        self.reads.append(key)
        return super().read(key)


def files(home: Path) -> list[Path]:
    """Return the files of the cache in the folder `prompts` in `home`."""
    return sorted((home / "prompts").glob("*.safetensors"))


def values_of(tokens: Sequence[int], salt: str = "model") -> Block:
    """Return the values that the pretended model computes: for each token a hash of all tokens up to it."""
    rows = [zlib.crc32(f"{salt} {list(tokens[: at + 1])}".encode()) for at in range(len(tokens))]
    column = np.array(rows, dtype=np.uint32)[None, None, :, None]
    return Block(tuple(tokens), (np.broadcast_to(column, (2, 1, len(rows), 2)).copy(),), ("F32",), (0, 0))


def blocks_of(tokens: Sequence[int], salt: str = "model") -> list[Block]:
    """Return the values of `values_of` in blocks of SIZE tokens; the last block may be shorter."""
    whole = values_of(tokens, salt)
    return [
        Block(whole.ids[at : at + SIZE], (whole.groups[0][:, :, at : at + SIZE].copy(),), ("F32",), (0, 0))
        for at in range(0, len(tokens), SIZE)
    ]


def snapshot_of(tokens: Sequence[int]) -> Snapshot:
    return Snapshot(tuple(tokens), values_of(tokens).groups, ("F32",), '{"array": 0}')


def is_right(value: BlockRun | Snapshot, tokens: Sequence[int], salt: str = "model") -> bool:
    """Return whether `value` equals what a run without cache computes for the first of `tokens`."""
    begun = tuple(tokens[: value.tokens])
    arrays = [block.groups[0] for block in value.blocks] if isinstance(value, BlockRun) else [value.arrays[0]]
    whole = np.concatenate(arrays, axis=2)
    return value.ids == begun and np.array_equal(whole, values_of(begun, salt).groups[0])


class Model:
    """A model that uses a store in the same manner as `ModelCache`."""

    def __init__(self, store: BlockStore, identity: str = "model") -> None:
        self.store, self.salt = store, identity
        self.keys = PrefixKeys(identity, SIZE)
        self.tags = {**TAGS, "identity": identity}

    def keep(self, tokens: Sequence[int]) -> int:
        """Store the blocks of `tokens`. Return how many of them were new."""
        keys = self.keys.of_blocks(tokens)
        first = self.store.count_stored(keys)
        blocks = blocks_of(tokens[: len(keys) * SIZE], self.salt)
        new = dict(zip(keys[first:], blocks[first:], strict=True))
        if new:
            self.store.insert(new, self.tags, keys)
        return len(new)

    def keep_snapshot(self, tokens: Sequence[int]) -> str:
        (key,) = self.keys.of_snapshots(tokens, [len(tokens)])
        self.store.insert({key: snapshot_of(tokens)}, self.tags)
        return key

    def get(self, tokens: Sequence[int]) -> int:
        """Return how many of `tokens` were found in the store, after checking that their values are right."""
        find = self.store.find(self.keys, tokens, self.tags)
        if find is None:
            return 0
        gathered = self.store.restore(find)
        self.store.record_restore(find, gathered)
        if gathered.value is None:
            return 0
        assert is_right(gathered.value, tokens, self.salt)
        return gathered.value.tokens


def restarted(open_store: Callable[..., BlockStore], *prompts: Sequence[int], **limits: Any) -> Any:
    """Return the model of a new engine, after an earlier one has stored the prompts, the newest last."""
    first = Model(open_store())
    for prompt in prompts:
        first.keep(prompt)
        first.store.persist(60.0)
    return Model(open_store(**limits))
