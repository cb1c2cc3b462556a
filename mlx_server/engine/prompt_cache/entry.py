"""What the cache keeps under a key, a block or a snapshot, from and to a file's bytes. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mlx_server.engine.prompt_cache import blob, block, snapshot
from mlx_server.engine.prompt_cache.blob import Corrupt, Tensor
from mlx_server.engine.prompt_cache.block import Block
from mlx_server.engine.prompt_cache.snapshot import Snapshot

FORMAT = "2"
"""Files of another are never read."""

Value = Block | Snapshot


@dataclass(frozen=True)
class Entry:
    """`tags` are what its file says of it: its model's `identity`, name and settings."""

    value: Value
    tags: Mapping[str, str]

    @property
    def nbytes(self) -> int:
        return self.value.nbytes


def file_bytes(key: str, entry: Entry) -> int:
    """What its file will take at most."""
    return blob.file_bytes(*_contents(key, entry))


def pack(key: str, entry: Entry) -> list[bytes | memoryview]:
    """Its file's parts, in order."""
    return blob.encode(*_contents(key, entry))


def unpack(key: str, data: bytes, identity: str) -> Value:
    """What the file `key` holds for the model of this identity. Raises Corrupt."""
    facts, tensors = blob.decode(data)
    told = {name: facts.get(name) for name in ("key", "format", "identity")}
    if told != {"key": key, "format": FORMAT, "identity": identity}:
        raise Corrupt("it is of another prompt, model or setting")
    return (snapshot if "tree" in facts else block).from_tensors(tensors, facts)


def _contents(key: str, entry: Entry) -> tuple[dict[str, Tensor], dict[str, str]]:
    value = entry.value
    tensors, facts = block.to_tensors(value) if isinstance(value, Block) else snapshot.to_tensors(value)
    return tensors, {**facts, **entry.tags, "key": key, "format": FORMAT}
