"""Convert what is stored under a key, a block or a snapshot, to and from the bytes of a file. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mlx_server.engine.prompt_cache import blob, block, snapshot
from mlx_server.engine.prompt_cache.blob import Corrupt, Tensor
from mlx_server.engine.prompt_cache.block import Block
from mlx_server.engine.prompt_cache.snapshot import Snapshot

FORMAT = "2"
"""The version of the format. Files of another version are never read."""

Value = Block | Snapshot


@dataclass(frozen=True)
class Entry:
    """A value with its tags: the model's `identity`, name and settings, which its file also has."""

    value: Value
    tags: Mapping[str, str]

    @property
    def nbytes(self) -> int:
        return self.value.nbytes


def file_bytes(key: str, entry: Entry) -> int:
    """Return the maximum size of the entry's file."""
    return blob.file_bytes(*_contents(key, entry))


def pack(key: str, entry: Entry) -> list[bytes | memoryview]:
    """Return the bytes of the entry's file in several parts, to be written one after another."""
    return blob.encode(*_contents(key, entry))


def unpack(key: str, data: bytes, identity: str) -> Value:
    """Return the value in the file `key` of the model with this identity. Raise Corrupt."""
    facts, tensors = blob.decode(data)
    found = {name: facts.get(name) for name in ("key", "format", "identity")}
    if found != {"key": key, "format": FORMAT, "identity": identity}:
        raise Corrupt("it belongs to another prompt, model or setting")
    return (snapshot if "tree" in facts else block).from_tensors(tensors, facts)


def _contents(key: str, entry: Entry) -> tuple[dict[str, Tensor], dict[str, str]]:
    value = entry.value
    tensors, facts = block.to_tensors(value) if isinstance(value, Block) else snapshot.to_tensors(value)
    return tensors, {**facts, **entry.tags, "key": key, "format": FORMAT}
