"""What is too long is found out from its start."""

from mlx_server.engine.generation.prompts.long_text import PIECE_CHARS, tokens_at_least


class Counter:
    """A tokenizer whose tokens have four characters; it notes what it was asked."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self, text: str) -> int:
        self.asked += len(text)
        return -(-len(text) // 4)


def test_short_texts_are_not_looked_at():
    count = Counter()
    assert tokens_at_least(["", "a" * PIECE_CHARS], count, 10) == 0
    assert count.asked == 0


def test_long_text_is_counted_until_it_is_enough():
    count = Counter()
    assert tokens_at_least(["a" * 100 * PIECE_CHARS], count, 1000) > 1000
    assert count.asked == PIECE_CHARS


def test_many_short_texts_are_a_long_one():
    count = Counter()
    assert tokens_at_least(["aaaa" * 100] * 10_000, count, 5000) > 5000
    assert count.asked < 30_000


def test_long_text_within_the_context_is_no_more_than_it_is():
    text = "a" * 3 * PIECE_CHARS
    assert 0 < tokens_at_least([text], Counter(), 10**9) <= len(text) // 4
