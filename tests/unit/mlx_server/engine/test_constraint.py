"""A grammar followed over one answer: asleep in thoughts, awake, over."""

from hypothesis import given
from hypothesis import strategies as st

from mlx_server.engine.grammar.constraint import Constraint

END = 9


class Digits:
    """Wants tokens 1, 2, 3 in this order, and then nothing."""

    def __init__(self):
        self.next, self.broken = 1, False

    def consume_token(self, token):
        self.broken = self.broken or token != self.next
        self.next += 1
        return not self.broken

    def is_stopped(self):
        return self.next > 3 or self.broken

    def is_error(self):
        return self.broken

    def compute_bitmask(self):
        return bytes([1 << self.next])


def constraint(wake_after=()):
    return Constraint(Digits(), frozenset({END}), wake_after)


def view(subject):
    return subject.asleep, subject.over, subject.allowed()


def test_text_that_is_whole_may_only_end():
    subject = constraint()
    for token in (1, 2, 3):
        assert subject.allowed() == bytes([1 << token])
        subject.advance(token)
    assert subject.over and subject.allowed() is None


def test_token_that_does_not_fit_leaves_only_the_end():
    subject = constraint()
    subject.advance(2)
    assert subject.over


def test_tokens_after_the_end_are_of_no_matter():
    subject = constraint()
    for token in (END, 5, 6):
        subject.advance(token)
    assert subject.over


def test_grammar_sleeps_until_the_last_token_of_the_mark():
    subject = constraint(wake_after=(7, 8))
    for token in (1, 7, 7, END):
        subject.advance(token)
        assert subject.asleep and not subject.over
    for token in (7, 8):
        subject.advance(token)
    assert view(subject) == view(constraint())


@given(st.lists(st.integers(1, 9), max_size=12), st.booleans())
def test_replayed_at_any_token_it_is_where_it_was(tokens, thinks):
    wake = (7, 8) if thinks else ()
    whole = constraint(wake)
    for at, token in enumerate(tokens):
        whole.advance(token)
        again = constraint(wake)
        for earlier in tokens[: at + 1]:
            again.advance(earlier)
        assert view(again) == view(whole)
