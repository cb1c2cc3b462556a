"""A generation from its first token to its end, and resumed in its middle."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_server.engine.generation.detokenizer import Detokenizer
from mlx_server.engine.generation.generation import Generation
from mlx_server.engine.generation.output_parser import OutputMarkers, OutputParser
from mlx_server.protocol import Done, Token

END = 0
LETTERS = dict(enumerate("#abcdef"))


def generation(limit=100, stop=(), repeated=0):
    detokenizer = Detokenizer(lambda ids: "".join(LETTERS[i] for i in ids), stop)
    return Generation(
        "r", [9, 9, 9], limit, frozenset({END}), detokenizer, 10.0, 0.5, max_repeated_tokens=repeated
    )


def feed(subject, tokens):
    """Return the events that `tokens` cause, up to the end of the answer."""
    events = []
    for token in tokens:
        events += subject.accept(token, 12.0)
        if subject.done:
            break
    return events


def text_of(events):
    return "".join(event.text for event in events)


def test_generation_neither_sends_nor_counts_the_end_token():
    events = feed(generation(), [1, 2, END, 3])
    assert events[:2] == [Token("r", 1, "a", 0, prompt_tokens=3), Token("r", 2, "b", 1)]
    assert isinstance(events[2], Done)
    assert (events[2].reason, events[2].usage.completion_tokens) == ("stop", 2)


def test_generation_ends_at_its_token_limit():
    events = feed(generation(limit=2), [1, 2, 3])
    assert [type(event) for event in events] == [Token, Token, Done]
    assert events[-1].reason == "length"


def test_generation_ends_at_a_stop_string_without_sending_it():
    events = feed(generation(stop=["cd"]), [1, 2, 3, 4, 5])
    assert text_of(events) == "ab"
    assert events[-1].reason == "stop"


def test_generation_that_ends_at_its_limit_sends_withheld_text_in_its_last_event():
    events = feed(generation(limit=3, stop=["cd"]), [1, 2, 3])
    assert (events[-1].reason, events[-1].text) == ("length", "c")


def test_usage_of_a_generation_divides_its_time_into_prefill_and_decode_at_the_first_token():
    subject = generation(limit=2)
    subject.accept(1, 13.0)
    done = subject.accept(2, 14.5)[-1]
    assert isinstance(done, Done)
    usage = done.usage
    assert (usage.prompt_tokens, usage.load_s, usage.prefill_s, usage.decode_s) == (3, 0.5, 3.0, 1.5)


def test_usage_of_a_generation_resumed_after_a_crash_counts_all_thinking_tokens():
    def thinker():
        subject = generation(limit=6)
        subject.parser = OutputParser(OutputMarkers(thinking=("e", "f")), thinking=True)
        return subject

    tokens = [1, 2, 3, 6, 4, 4]  # abc, the end marker, dd
    whole = thinker()
    done = feed(whole, tokens)[-1]
    assert (done.usage.completion_tokens, done.usage.reasoning_tokens) == (6, 3)
    resumed = thinker()
    resumed.replay(tokens[:2], 11.0)
    assert feed(resumed, tokens[2:])[-1].usage.reasoning_tokens == 3


def test_cancelled_generation_reports_the_tokens_generated_so_far():
    subject = generation()
    feed(subject, [1, 2])
    done = subject.cancel(13.0)
    assert (done.reason, done.usage.completion_tokens) == ("cancelled", 2)


@pytest.mark.parametrize(("repeated", "sent"), [(3, 5), (30, 9), (0, 9)])
def test_generation_that_repeats_one_token_more_often_than_allowed_ends_with_reason_length(repeated, sent):
    # A small model may write one token until its context is full; Ollama ends it after some 30.
    events = feed(generation(repeated=repeated), [1, 2, 2, 2, 2, 2, 3, 3, 3])
    assert len([event for event in events if isinstance(event, Token)]) == sent
    assert [event.reason for event in events if isinstance(event, Done)] == ["length"] * (repeated == 3)


@given(
    st.lists(st.integers(0, 6) | st.just(1), min_size=1, max_size=20),
    st.integers(1, 15),
    st.lists(st.text("abcdef", min_size=1, max_size=3), max_size=2),
    st.integers(0, 20),
    st.integers(0, 3),
)
def test_generation_resumed_at_any_token_loses_and_repeats_no_text(tokens, limit, stop, cut, repeated):
    whole = feed(generation(limit, stop, repeated), tokens)
    sent = [event for event in whole if isinstance(event, Token)][:cut]
    subject = generation(limit, stop, repeated)
    done = subject.replay([event.token for event in sent], 12.0)
    rest = [done] if done else feed(subject, tokens[len(sent) :])
    assert sent + rest == whole
