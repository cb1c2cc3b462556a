"""Convert an entry of the prompt cache to and from the bytes of its file. An entry is a block (the attention
keys and values of consecutive tokens) or a snapshot (a model's whole state after some tokens). Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mlx_server.engine.prompt_cache import blob, block, snapshot
from mlx_server.engine.prompt_cache.blob import Corrupt, Tensor
from mlx_server.engine.prompt_cache.block import Block
from mlx_server.engine.prompt_cache.snapshot import Snapshot

FORMAT = "2"
"""The version of the file format. Files of another version are not used."""

Value = Block | Snapshot


@dataclass(frozen=True)
class Entry:
    """A block or snapshot (`value`) with its tags: the model's `identity`, name and settings, which are also
    stored in its file.
    """

    value: Value
    tags: Mapping[str, str]

    @property
    def nbytes(self) -> int:
        return self.value.nbytes


def file_bytes(key: str, entry: Entry) -> int:
    """Return an upper bound of the size, in bytes, of the file of `entry`, which also contains its `key`."""
    return blob.file_bytes(*_contents(key, entry))


def pack(key: str, entry: Entry) -> list[bytes | memoryview]:
    """Return the bytes of the entry's file, in several parts to be written one after another."""
    return blob.encode(*_contents(key, entry))


def unpack(key: str, data: bytes, identity: str) -> Value:
    """Return the block or snapshot in the file of `key`, whose bytes are `data`. Raises Corrupt if the file
    is damaged, of another format version, or belongs to another key or model identity.
    """
    facts, tensors = blob.decode(data)
    found = {name: facts.get(name) for name in ("key", "format", "identity")}
    if found != {"key": key, "format": FORMAT, "identity": identity}:
        raise Corrupt("it belongs to another prompt, model or setting")
    return (snapshot if "tree" in facts else block).from_tensors(tensors, facts)


def _contents(key: str, entry: Entry) -> tuple[dict[str, Tensor], dict[str, str]]:
    value = entry.value
    tensors, facts = block.to_tensors(value) if isinstance(value, Block) else snapshot.to_tensors(value)
    return tensors, {**facts, **entry.tags, "key": key, "format": FORMAT}
