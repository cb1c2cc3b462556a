"""Compute the keys under which the prompt cache stores the beginnings of prompts: a rolling hash over blocks
of tokens. Pure.

A block's key is `PARENT-OWN`. OWN is a hash over the previous block's key and the block's own tokens, and
PARENT is the beginning of the previous block's OWN. So a key identifies all tokens from the first one to the
block's last, and tells which block precedes. For the first block of a prompt, a hash that identifies the
model takes the place of the previous block's key.

A snapshot is a model's whole state after some tokens. Its key is `PARENT-LENGTH-OWN`, where PARENT is the
same for all snapshots of one model, LENGTH is the number of the tokens, and OWN is a hash over all of them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

BLOCK_TOKENS = 16
"""How many tokens a block has. A prompt that differs from the cached one within a block must recompute the
tokens of that block. Smaller blocks mean more files.
"""

_OWN_BYTES, _PARENT_DIGITS = 16, 16


class PrefixKeys:
    """Computes the keys under which the prompt cache stores the beginnings of one model's prompts: a key for
    each whole block of `block_tokens` tokens, and a key for each snapshot. `identity` identifies everything
    that determines the model's attention keys and values.
    """

    def __init__(self, identity: str, block_tokens: int = BLOCK_TOKENS) -> None:
        self.block_tokens = block_tokens
        self.root = "-" + _digest(f"{block_tokens} {identity}".encode())
        self.snapshots = as_parent("-" + _digest(b"snapshot", self.root.encode()))
        """The PARENT part of the keys of all snapshots."""

    def of_blocks(self, tokens: Sequence[int], known: Sequence[str] = ()) -> list[str]:
        """Return the key of each whole block of `tokens`. `known` are the keys of the first blocks, if they
        were computed earlier.
        """
        keys = list(known)
        size = self.block_tokens
        for end in range((len(keys) + 1) * size, len(tokens) + 1, size):
            before = keys[-1] if keys else self.root
            own = _digest(before.encode(), _bytes(tokens[end - size : end]))
            keys.append(f"{as_parent(before)}-{own}")
        return keys

    def of_snapshots(self, tokens: Sequence[int], lengths: Iterable[int]) -> list[str]:
        """Return the keys of snapshots of the first n tokens, for each n in `lengths` that is at most the
        length of `tokens`, the longest first.
        """
        keys = []
        digest = hashlib.blake2b(self.root.encode(), digest_size=_OWN_BYTES)
        at = 0
        for length in sorted({length for length in lengths if length <= len(tokens)}):
            digest.update(_bytes(tokens[at:length]))
            keys.append(f"{self.snapshots}-{length}-{digest.hexdigest()}")
            at = length
        return keys[::-1]


def as_parent(key: str) -> str:
    """Return the part with which the keys of all blocks that directly follow the block with the key `key`
    begin, before their first hyphen. It consists of the first digits of the hash at the end of `key`.
    """
    return key.rpartition("-")[2][:_PARENT_DIGITS]


def parent_of(key: str) -> str:
    """Return the part of `key` before its first hyphen. It identifies the block that precedes the block with
    this key; for the first block of a prompt and for a snapshot, it identifies the model.
    """
    return key.partition("-")[0]


def length_of(key: str) -> int:
    """Return the number of tokens in a snapshot's key; 0 if `key` is a block's key or any other name."""
    parts = key.split("-")
    return int(parts[1]) if len(parts) == 3 and parts[1].isascii() and parts[1].isdecimal() else 0


def _bytes(tokens: Sequence[int]) -> bytes:
    """Return the tokens as text. Each token ends with a comma, so that parts can be concatenated."""
    return "".join(f"{token}," for token in tokens).encode()


def _digest(*parts: bytes) -> str:
    digest = hashlib.blake2b(digest_size=_OWN_BYTES)
    for part in parts:
        digest.update(part)
    return digest.hexdigest()
