"""Read what the prompt cache has stored for the beginning of a prompt. May run on any thread."""

from __future__ import annotations

from collections.abc import Sequence

from mlx_server.engine.log import log_event
from mlx_server.engine.prompt_cache.block import Block, BlockRun, common_prefix_length
from mlx_server.engine.prompt_cache.disk.block_reader import BlockReader
from mlx_server.engine.prompt_cache.entry import Value
from mlx_server.engine.prompt_cache.keys import length_of
from mlx_server.engine.prompt_cache.prefix_match import PrefixMatch, RestoredPrefix
from mlx_server.engine.prompt_cache.snapshot import Snapshot


class PrefixRestore:
    """Restores the beginning of one prompt from what `match` lists. Blocks and snapshots that are not in
    memory are read by `reader`.
    """

    def __init__(self, match: PrefixMatch, reader: BlockReader) -> None:
        self._match, self._reader = match, reader
        self._used, self._missing, self._broken = list[str](), list[str](), list[str]()

    def run(self) -> RestoredPrefix:
        """Read and return the match's longest readable snapshot, or else its blocks up to the first one that
        cannot be read.
        """
        for key in self._match.snapshots:
            value = self._get(key, self._match.tokens[: length_of(key)])
            if isinstance(value, Snapshot):
                return self._result(value)
        blocks = self._matching_blocks()
        return self._result(BlockRun(tuple(blocks)) if blocks else None)

    def _result(self, value: BlockRun | Snapshot | None) -> RestoredPrefix:
        return RestoredPrefix(value, tuple(self._used), tuple(self._missing), tuple(self._broken))

    def _matching_blocks(self) -> list[Block]:
        match, blocks = self._match, list[Block]()
        size = match.block_tokens
        for at, key in enumerate(match.keys):
            block = self._get(key, match.tokens[at * size : (at + 1) * size])
            if not isinstance(block, Block) or (blocks and not block.fits(blocks[0])):
                return blocks
            blocks.append(block)
        part = self._partial_block()
        if part and (not blocks or part.fits(blocks[0])):
            blocks.append(part)
        return blocks

    def _partial_block(self) -> Block | None:
        """Compare the rest of the prompt, after its last matching block, with the stored blocks that follow
        that block (`PrefixMatch.next_keys`). Choose the block that shares the most first tokens with the
        rest, and return a copy of this shared beginning; None if no block shares even the first token.
        """
        match = self._match
        rest = match.tokens[len(match.keys) * match.block_tokens :]
        best: Block | None = None
        length, used = 0, list(self._used)
        for key in match.next_keys:
            block = self._get(key)
            same = common_prefix_length(block.ids, rest) if isinstance(block, Block) else 0
            if isinstance(block, Block) and same > length:
                best, length, self._used = block, same, [*used, key]
        if best is None:
            self._used = used  # the following blocks were compared but are not used
        return best.head(length) if best else None

    def _get(self, key: str, ids: Sequence[int] | None = None) -> Value | None:
        """Return the block or snapshot of `key` from memory or disk; None if it cannot be read, or holds
        other tokens than `ids`. The key is added to the used, missing or broken keys.
        """
        match = self._match
        value = match.held.get(key)
        if value is None:
            value = self._reader.get(key, match.tags, self._missing, self._broken)
        if value is not None and ids is not None and value.ids != tuple(ids):
            log_event("cache_block_dropped", cause="it holds other tokens", key=key)
            self._broken.append(key)
            return None
        if value is not None:
            self._used.append(key)
        return value
