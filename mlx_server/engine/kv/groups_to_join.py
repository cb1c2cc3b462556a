"""Decide which groups of rows of a key-value cache are worth copying into one array. Pure."""

from __future__ import annotations

from collections.abc import Sequence

CHEAP_TOKENS = 2048
"""Groups are joined while they take no more room together than this many tokens, with padding: copying them
takes less time than attention to one more group in many steps."""
MOST_GROUPS = 8
"""Each further group costs some operations in each layer."""


def pair_to_join(groups: Sequence[tuple[int, int]]) -> int | None:
    """Return the index of the first of two neighbouring groups that should be joined into one; None if no two
    groups should be. `groups` has the number of rows of each group, and the number of tokens of its longest
    row.

    Only the pair is considered that would take the least room as one group. It should be joined if it would
    take at most CHEAP_TOKENS tokens, or if there are more than MOST_GROUPS groups.
    """
    pairs = [
        ((rows + more_rows) * max(tokens, more_tokens), first)
        for first, ((rows, tokens), (more_rows, more_tokens)) in enumerate(
            zip(groups, groups[1:], strict=False)
        )
    ]
    if not pairs:
        return None
    room, first = min(pairs)
    return first if room <= CHEAP_TOKENS or len(groups) > MOST_GROUPS else None
