"""A constraint follows an answer: not active in thinking, then active, until the answer must end."""

from hypothesis import given
from hypothesis import strategies as st

from mlx_server.engine.grammar.constraint import Constraint, GateAfter

END = 9


class Digits:
    """A matcher that accepts tokens 1, 2 and 3 in this order, and then nothing."""

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

    def rollback(self, num_tokens):
        self.next -= num_tokens
        return not self.broken

    def compute_ff_tokens(self):
        return [*range(self.next, 4)]

    def validate_tokens(self, tokens):
        return next((i for i, token in enumerate(tokens) if token != self.next + i), len(tokens))


def constraint(activate_after=()):
    return Constraint(Digits(), frozenset({END}), GateAfter(activate_after) if activate_after else None)


def state_of(subject):
    return subject.is_active, subject.must_end, subject.allowed_mask()


def test_grammar_constraint_ends_the_answer_when_the_text_is_complete():
    subject = constraint()
    for token in (1, 2, 3):
        assert subject.allowed_mask() == bytes([1 << token])
        subject.advance(token)
    assert subject.must_end and subject.allowed_mask() is None


def test_grammar_constraint_ends_the_answer_after_a_token_that_the_grammar_refuses():
    subject = constraint()
    subject.advance(2)
    assert subject.must_end


def test_grammar_constraint_ignores_tokens_after_an_end_token():
    subject = constraint()
    for token in (END, 5, 6):
        subject.advance(token)
    assert subject.must_end


def test_grammar_constraint_is_active_only_after_the_last_token_of_the_thinking_marker():
    subject = constraint(activate_after=(7, 8))
    for token in (1, 7, 7, END):
        subject.advance(token)
        assert not subject.is_active and not subject.must_end
    for token in (7, 8):
        subject.advance(token)
    assert state_of(subject) == state_of(constraint())


@given(st.lists(st.integers(1, 9), max_size=12), st.booleans())
def test_grammar_constraint_that_replays_an_answers_tokens_has_the_state_of_the_uninterrupted_one(
    tokens, thinks
):
    activate_after = (7, 8) if thinks else ()
    uninterrupted = constraint(activate_after)
    for at, token in enumerate(tokens):
        uninterrupted.advance(token)
        resumed = constraint(activate_after)
        for earlier in tokens[: at + 1]:
            resumed.advance(earlier)
        assert state_of(resumed) == state_of(uninterrupted)


@given(st.integers(0, 3), st.booleans(), st.integers(0, 6))
def test_grammar_constraint_rewound_by_some_tokens_has_the_state_before_them(taken, ends, undone):
    tokens = [*range(1, taken + 1), *([END, 5] if ends else [])]
    undone = min(undone, len(tokens))
    subject, expected = constraint(), constraint()
    for token in tokens:
        subject.advance(token)
    subject.rewind(undone)
    for token in tokens[: len(tokens) - undone]:
        expected.advance(token)
    assert state_of(subject) == state_of(expected)


def test_grammar_constraint_returns_the_tokens_that_the_grammar_forces_next():
    subject = constraint()
    subject.advance(1)
    assert subject.forced_tokens() == [2, 3]
    assert constraint(activate_after=(7,)).forced_tokens() == []


def test_grammar_constraint_returns_the_allowed_prefix_of_guessed_tokens():
    subject = constraint()
    assert subject.allowed_prefix([1, 2, 5]) == [1, 2]
    assert subject.allowed_prefix([1, END]) == [1]
    subject.advance(END)
    assert subject.allowed_prefix([1]) == []
