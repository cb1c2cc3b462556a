"""Names of prefixes: a rolling hash over blocks of tokens. Pure.

A block's key is `PARENT-OWN`: the begin of the key before it, and a hash over that key and the block's own
tokens. So a key stands for all tokens from the first to the block's last, and tells what it may follow. A
snapshot's key is `PARENT-LENGTH-OWN`: how many tokens it holds, and a hash over them all.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

BLOCK_TOKENS = 16
"""A prompt that leaves an earlier one in mid-block computes up to so many again. Small is warm, large is few
files."""

_OWN_BYTES, _PARENT_DIGITS = 16, 16


class PrefixKeys:
    """Keys of one model's prefixes. `identity` is all that makes its values what they are."""

    def __init__(self, identity: str, block_tokens: int = BLOCK_TOKENS) -> None:
        self.block_tokens = block_tokens
        self.root = "-" + _digest(f"{block_tokens} {identity}".encode())
        self.snapshots = as_parent("-" + _digest(b"snapshot", self.root.encode()))
        """What the keys of all snapshots begin with."""

    def of_blocks(self, tokens: Sequence[int], known: Sequence[str] = ()) -> list[str]:
        """The key of each whole block of `tokens`; `known` are those of the first, from an earlier call."""
        keys = list(known)
        size = self.block_tokens
        for end in range((len(keys) + 1) * size, len(tokens) + 1, size):
            before = keys[-1] if keys else self.root
            own = _digest(before.encode(), _bytes(tokens[end - size : end]))
            keys.append(f"{as_parent(before)}-{own}")
        return keys

    def of_snapshots(self, tokens: Sequence[int], lengths: Iterable[int]) -> list[str]:
        """The key of the state after the first so many tokens, for each of `lengths`, the longest first.

        Lengths that `tokens` do not have are left out.
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
    """What the keys of blocks that follow `key` begin with."""
    return key.rpartition("-")[2][:_PARENT_DIGITS]


def parent_of(key: str) -> str:
    """What `key` follows, as `as_parent` has it."""
    return key.partition("-")[0]


def length_of(key: str) -> int:
    """How many tokens the snapshot of this key holds; 0 for a block's key, and for what is none of ours."""
    parts = key.split("-")
    return int(parts[1]) if len(parts) == 3 and parts[1].isascii() and parts[1].isdecimal() else 0


def _bytes(tokens: Sequence[int]) -> bytes:
    """As text, which has room for any number. Each ends in a comma, so that parts can be put together."""
    return "".join(f"{token}," for token in tokens).encode()


def _digest(*parts: bytes) -> str:
    digest = hashlib.blake2b(digest_size=_OWN_BYTES)
    for part in parts:
        digest.update(part)
    return digest.hexdigest()
