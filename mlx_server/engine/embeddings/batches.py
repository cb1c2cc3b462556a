"""Divide texts into batches of similar length. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

MAX_BATCH_TOKENS = 2048
"""The most tokens, including padding, of one forward pass. Other requests run between two passes."""

MAX_PADDING_TOKENS = 256
"""The most padding tokens of one forward pass. They take as much time as other tokens, but each further pass
takes time, too."""


def batch_by_length(
    lengths: Sequence[int],
    max_tokens: int = MAX_BATCH_TOKENS,
    max_padding: int = MAX_PADDING_TOKENS,
) -> Iterator[list[int]]:
    """Yield the indices of `lengths` (tokens of each text) in groups of similar length.

    A group, padded to its longest text, has at most `max_tokens` tokens, of which at most `max_padding` are
    padding, unless it is a single text.
    """
    batch: list[int] = []
    tokens = 0
    for index in sorted(range(len(lengths)), key=lambda i: lengths[i]):
        length = lengths[index]
        whole = length * (len(batch) + 1)
        if batch and (whole > max_tokens or whole - tokens - length > max_padding):
            yield batch
            batch, tokens = [], 0
        batch.append(index)
        tokens += length
    if batch:
        yield batch


def pack_by_length(lengths: Sequence[int], max_tokens: int = MAX_BATCH_TOKENS) -> Iterator[list[int]]:
    """Yield the indices of `lengths` (tokens of each text) in groups, the shortest texts first.

    A group has at most `max_tokens` tokens, unless it is a single text.
    """
    batch: list[int] = []
    tokens = 0
    for index in sorted(range(len(lengths)), key=lambda i: lengths[i]):
        if batch and tokens + lengths[index] > max_tokens:
            yield batch
            batch, tokens = [], 0
        batch.append(index)
        tokens += lengths[index]
    if batch:
        yield batch
