"""Names of prefixes: a rolling hash over blocks of tokens. Pure.

A block's key is `PARENT-OWN`: the begin of the key before it, and a hash over that key and the block's own
tokens. So a key stands for all tokens from the first to the block's last, and tells what it may follow.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Sequence

BLOCK_TOKENS = 16
"""A prompt that leaves an earlier one in mid-block computes up to so many again. Small is warm, large is few
files."""

_OWN_BYTES, _PARENT_DIGITS = 16, 16


class PrefixKeys:
    """Keys of one model's prefixes. `identity` is all that makes its values what they are."""

    def __init__(self, identity: str, block_tokens: int = BLOCK_TOKENS) -> None:
        self.block_tokens = block_tokens
        self.root = "-" + _digest(f"{block_tokens} {identity}".encode())

    def of_blocks(self, tokens: Sequence[int], known: Sequence[str] = ()) -> list[str]:
        """The key of each whole block of `tokens`; `known` are those of the first, from an earlier call."""
        keys = list(known)
        size = self.block_tokens
        for end in range((len(keys) + 1) * size, len(tokens) + 1, size):
            before = keys[-1] if keys else self.root
            own = _digest(before.encode(), array("q", tokens[end - size : end]).tobytes())
            keys.append(f"{as_parent(before)}-{own}")
        return keys

    def of_snapshot(self, tokens: Sequence[int]) -> str:
        """The key of a state that cannot be cut: it holds for exactly these tokens."""
        return f"{as_parent(self.root)}-{_digest(b'snapshot', array('q', tokens).tobytes())}"


def as_parent(key: str) -> str:
    """What the keys of blocks that follow `key` begin with."""
    return key.rpartition("-")[2][:_PARENT_DIGITS]


def parent_of(key: str) -> str:
    """What `key` follows, as `as_parent` has it."""
    return key.partition("-")[0]


def _digest(*parts: bytes) -> str:
    digest = hashlib.blake2b(digest_size=_OWN_BYTES)
    for part in parts:
        digest.update(part)
    return digest.hexdigest()
