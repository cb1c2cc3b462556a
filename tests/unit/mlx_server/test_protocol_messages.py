"""What goes over the wire comes back the same, and what is no message is refused by name."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_server import protocol
from mlx_server.protocol import (
    Alive,
    Cancel,
    Failed,
    Generate,
    LoadedModelReport,
    ProtocolError,
    Sampling,
    Token,
    decode_event,
    decode_op,
    encode,
    pack_vectors,
    unpack_vectors,
)


def json_has_words_for(message) -> bool:
    """JSON has none for infinity and for what is not a number."""
    return not re.search(r"\b(inf|nan)\b", repr(message))


OPS = st.one_of([st.from_type(cls) for cls in protocol._OPS]).filter(json_has_words_for)
EVENTS = st.one_of([st.from_type(cls) for cls in protocol._EVENTS if cls is not Failed]).filter(
    json_has_words_for
)


@given(OPS)
def test_operation_survives_the_wire(op):
    line = encode(op)
    assert line.count(b"\n") == 1
    assert decode_op(line) == op


@given(EVENTS)
def test_event_survives_the_wire(event):
    assert decode_event(encode(event)) == event


def test_nested_and_free_form_fields_survive():
    failed = Failed("r", "context_exceeded", "long", fields={"prompt_tokens": 9, "deep": {"null": None}})
    assert decode_event(encode(failed)) == failed
    alive = Alive(1, True, 2, (LoadedModelReport("m", "embed", 3, 4),))
    assert decode_event(encode(alive)) == alive
    # half of a surrogate pair is no text, yet JSON from a client can carry it
    half = Generate("a", "m", "text", prompt="\ud83d")
    assert decode_op(encode(half)) == half


def test_whole_number_is_taken_for_a_float():
    line = b'{"op":"generate","id":"a","model":"m","kind":"text","sampling":{"temperature":0}}'
    assert decode_op(line) == Generate("a", "m", "text", sampling=Sampling(temperature=0.0))


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        (b"", "not a line of JSON"),
        (b"[1]", "not list"),
        (b"\xff\xfe", "not a line of JSON"),
        (b"[" * 100_000, "not a line of JSON"),
        (b'{"op": "shutdown", "drain_s": Infinity}', "Infinity is no number"),
        (b"{}", 'unknown "op": None'),
        (b'{"op": ["cancel"]}', 'unknown "op"'),
        (b'{"op": "cancel"}', "missing"),
        (b'{"op": "cancel", "id": 3}', "cancel.id: expected str, got int"),
        (b'{"op": "cancel", "id": "a", "more": 1}', "unknown field 'more'"),
        (b'{"op": "embed", "id": "a", "model": "m", "texts": "no list"}', "embed.texts: expected a list"),
        (b'{"op": "embed", "id": "a", "model": "m", "texts": [], "truncate": 1}', "expected bool"),
        (b'{"op": "generate", "id": "a", "model": "m", "kind": "song"}', "none of 'chat', 'text'"),
        (
            b'{"op": "generate", "id": "a", "model": "m", "kind": "text", "emitted": [1, true]}',
            r"emitted\[1\]",
        ),
        (b'{"op": "generate", "id": "a", "model": "m", "kind": "text", "sampling": 1}', "expected an object"),
    ],
)
def test_line_that_is_no_operation_is_refused_by_name(line, complaint):
    with pytest.raises(ProtocolError, match=complaint):
        decode_op(line)


def test_infinite_number_is_refused_when_written():
    with pytest.raises(ProtocolError, match="generate"):
        encode(Generate("a", "m", "text", prompt="p", keep_alive_s=float("inf")))


def test_event_is_no_operation():
    with pytest.raises(ProtocolError):
        decode_op(encode(Token("a", 1, "t", 0)))
    with pytest.raises(ProtocolError):
        decode_event(encode(Cancel("a")))


@given(st.lists(st.lists(st.floats(width=32, allow_nan=False), min_size=3, max_size=3)))
def test_vectors_survive_packing(rows):
    assert unpack_vectors(pack_vectors(rows), 3) == rows


@pytest.mark.parametrize(("text", "dim"), [("AAAA", 1), ("not base64!", 1), ("AAAAAA==", 0), ("AAAAAA==", 3)])
def test_vectors_that_do_not_fit_are_refused(text, dim):
    with pytest.raises(ProtocolError):
        unpack_vectors(text, dim)
