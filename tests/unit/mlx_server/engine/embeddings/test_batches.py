"""Texts are divided into batches: each text once, short ones first, and within the limits."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mlx_server.engine.embeddings.batches import MAX_PADDING_TOKENS, PendingTexts

LENGTHS = st.lists(st.integers(1, 900), max_size=40)


@given(LENGTHS, st.lists(st.integers(1, 2048), min_size=1), st.booleans())
def test_each_pending_text_is_in_exactly_one_batch_within_the_limits(lengths, limits, packs):
    pending, taken, count = PendingTexts(lengths, packs=packs), list[int](), 0
    while pending:
        limit = limits[count % len(limits)]
        batch = pending.take(limit)
        tokens, longest = sum(lengths[i] for i in batch), max(lengths[i] for i in batch)
        in_all = tokens if packs else longest * len(batch)
        assert len(batch) == 1 or in_all <= limit
        assert packs or in_all - tokens <= MAX_PADDING_TOKENS
        taken += batch
        count += 1
    assert sorted(taken) == list(range(len(lengths)))
    assert [lengths[i] for i in taken] == sorted(lengths)
    assert pending.take() == []


def test_batch_of_pending_texts_is_as_large_as_its_limit_allows():
    pending = PendingTexts([4, 2, 4, 2], packs=True)
    assert [pending.take(8), pending.take(8)] == [[1, 3, 0], [2]]
    pending = PendingTexts([4, 2, 4, 2], packs=False)
    assert [pending.take(8), pending.take(8)] == [[1, 3], [0, 2]]
