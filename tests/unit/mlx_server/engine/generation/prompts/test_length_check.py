"""The tokens of long texts are counted only until they are known to exceed the limit."""

from mlx_server.engine.generation.prompts.length_check import CHUNK_CHARS, min_token_count


class Counter:
    """Counts one token for four characters, and records how many characters it was given."""

    def __init__(self) -> None:
        self.counted_chars = 0

    def __call__(self, text: str) -> int:
        self.counted_chars += len(text)
        return -(-len(text) // 4)


def test_min_token_count_of_texts_that_cannot_exceed_the_limit_tokenizes_nothing():
    count = Counter()
    assert min_token_count(["", "a" * CHUNK_CHARS], count, 10) == 0
    assert count.counted_chars == 0


def test_min_token_count_stops_in_the_chunk_that_exceeds_the_limit():
    count = Counter()
    assert min_token_count(["a" * 100 * CHUNK_CHARS], count, 1000) > 1000
    assert count.counted_chars == CHUNK_CHARS


def test_min_token_count_of_many_short_texts_adds_up_and_stops_at_the_limit():
    count = Counter()
    assert min_token_count(["aaaa" * 100] * 10_000, count, 5000) > 5000
    assert count.counted_chars < 30_000


def test_min_token_count_never_exceeds_the_true_count():
    text = "a" * 3 * CHUNK_CHARS
    assert 0 < min_token_count([text], Counter(), 10**9) <= len(text) // 4
