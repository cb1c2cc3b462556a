"""Detokenized text equals the original, up to a stop string, wherever it is cut into tokens."""

from collections.abc import Sequence

from hypothesis import example, given
from hypothesis import strategies as st

from mlx_server.engine.generation.detokenizer import Detokenizer


class Vocabulary:
    """Gives token ids to byte strings, and decodes them as byte-level tokenizers do."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []

    def tokens(self, *pieces: bytes) -> list[int]:
        start = len(self.pieces)
        self.pieces += pieces
        return list(range(start, len(self.pieces)))

    def decode(self, ids: Sequence[int]) -> str:
        return b"".join(self.pieces[i] for i in ids).decode("utf-8", "replace")


def run(detokenizer: Detokenizer, tokens: Sequence[int]) -> list[str]:
    """Return what each token released, and what `flush` released unless a stop string came first."""
    released = []
    for token in tokens:
        released.append(detokenizer.push(token))
        if detokenizer.stopped:
            return released
    return [*released, detokenizer.flush()]


def cut(data: bytes, at: Sequence[int]) -> list[bytes]:
    edges = sorted({0, len(data), *(i for i in at if i < len(data))})
    return [data[a:b] for a, b in zip(edges, edges[1:], strict=False)]


# U+FFFD itself is what an incomplete character looks like.
texts = st.text(st.characters(codec="utf-8", exclude_characters="\ufffd"), max_size=40)
few_letters = st.text("abé", max_size=30)


@given(texts, st.lists(st.integers(0, 80)))
def test_detokenizer_returns_the_whole_text_however_it_is_cut_into_tokens(text, at):
    vocabulary = Vocabulary()
    tokens = vocabulary.tokens(*cut(text.encode(), at))
    assert "".join(run(Detokenizer(vocabulary.decode), tokens)) == text


@given(few_letters, st.text("abé", min_size=1, max_size=4), st.lists(st.integers(0, 60)))
def test_detokenizer_ends_before_a_stop_string_however_the_text_is_cut_into_tokens(text, stop, at):
    vocabulary = Vocabulary()
    detokenizer = Detokenizer(vocabulary.decode, [stop])
    out = "".join(run(detokenizer, vocabulary.tokens(*cut(text.encode(), at))))
    assert out == text.split(stop)[0]
    assert detokenizer.stopped == (stop in text)


@given(few_letters, st.lists(st.integers(0, 60)), st.integers(0, 30))
def test_detokenizer_given_the_same_tokens_again_returns_the_same_pieces_of_text(text, at, cut_at):
    vocabulary = Vocabulary()
    tokens = vocabulary.tokens(*cut(text.encode(), at))
    whole = run(Detokenizer(vocabulary.decode, ["ab", "éé"]), tokens)
    again = run(Detokenizer(vocabulary.decode, ["ab", "éé"]), tokens)
    assert whole[cut_at:] == again[cut_at:]


def test_detokenizer_withholds_a_character_in_three_tokens_until_it_is_complete():
    vocabulary = Vocabulary()
    smile = "😀".encode()
    tokens = vocabulary.tokens(b"a", smile[:1], smile[1:3], smile[3:], b"b")
    assert run(Detokenizer(vocabulary.decode), tokens) == ["a", "", "", "😀", "b", ""]


def test_detokenizer_withholds_a_possible_start_of_a_stop_string_and_then_releases_it():
    vocabulary = Vocabulary()
    tokens = vocabulary.tokens(b"grade: ", b"E", b"N", b"ough")
    assert run(Detokenizer(vocabulary.decode, ["END"]), tokens) == ["grade: ", "", "", "ENough", ""]


def test_detokenizer_flush_returns_the_withheld_text():
    # mlx-lm drops it: "grade: E" with the stop string "END" became "grade: ".
    vocabulary = Vocabulary()
    tokens = vocabulary.tokens(b"grade: ", b"E")
    assert run(Detokenizer(vocabulary.decode, ["END"]), tokens) == ["grade: ", "", "E"]


@given(texts, st.lists(st.integers(0, 80)), st.integers(0, 80), st.sampled_from([(), ("END",)]))
@example("Hi 😀", [1, 4], 3, ())
@example("Hi 😀", [4, 5], 2, ("END",))
def test_detokenized_text_cut_off_anywhere_ends_before_an_incomplete_character(text, at, limit, stop):
    # "Say hi" with max_tokens 1 to 8 was answered with an emoji's first bytes, shown as U+FFFD.
    vocabulary = Vocabulary()
    pieces = cut(text.encode(), at)[:limit]
    shown = "".join(run(Detokenizer(vocabulary.decode, stop), vocabulary.tokens(*pieces)))
    assert shown == b"".join(pieces).decode("utf-8", "ignore")


def test_detokenizer_with_two_stop_strings_ends_at_the_one_that_comes_first_in_the_text():
    vocabulary = Vocabulary()
    assert run(Detokenizer(vocabulary.decode, ["three", "two"]), vocabulary.tokens(b"one two three")) == [
        "one "
    ]


def test_detokenizer_keeps_a_space_after_the_prompt_if_decoding_drops_leading_spaces():
    words = {1: "capital", 2: " is", 3: " Paris"}

    def decode(ids):
        return "".join(words[i] for i in ids).removeprefix(" ")

    assert run(Detokenizer(decode, context=[1, 2]), [3]) == [" Paris", ""]
