"""Messages are decoded unchanged, and whatever is not a message raises ProtocolError and nothing else."""

from __future__ import annotations

import contextlib
import functools
import json
import math
import types
import typing

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec.structs import fields

from mlx_server import protocol
from mlx_server.protocol import (
    MAX_FRAME_BYTES,
    MAX_NESTING,
    Alive,
    Begin,
    Cancel,
    Done,
    Failed,
    Generate,
    Hello,
    LoadedModelReport,
    Logprobs,
    ProtocolError,
    Sampling,
    Shutdown,
    Token,
    TokenLogprob,
    ToolCall,
    Usage,
    decode_event,
    decode_op,
    encode,
    pack_vectors,
    prepare,
    unpack_vectors,
)
from mlx_server.protocol.frames import JSON, MSGPACK, pack_frame

ANY_TEXT = st.text(st.characters(exclude_categories=()))
"""Lone surrogates and NUL included."""
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | ANY_TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(ANY_TEXT, inner, max_size=4),
    max_leaves=10,
)
BY_TYPE: dict[object, st.SearchStrategy] = {
    str: ANY_TEXT,
    int: st.integers(),
    float: st.floats(),
    bool: st.booleans(),
    types.NoneType: st.none(),
    dict: st.dictionaries(ANY_TEXT, ANY_JSON, max_size=4),
}


def values_of(hint) -> st.SearchStrategy:
    """Return a strategy for every value that the type annotation `hint` of a message's field allows."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return st.one_of(*map(values_of, arguments))
    if origin is typing.Literal:
        return st.sampled_from(arguments)
    if origin is tuple and Ellipsis not in arguments:
        return st.tuples(*map(values_of, arguments))
    if origin is tuple:
        return st.lists(values_of(arguments[0]), max_size=4).map(tuple)
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        return messages_of(hint)
    return BY_TYPE[origin or hint]


@functools.cache
def messages_of(cls) -> st.SearchStrategy:
    return st.builds(cls, **{field.name: values_of(field.type) for field in fields(cls)})


def canonical(message) -> str:
    """Return a text that is equal for equal messages, even if they hold NaN, which equals nothing."""
    return repr(message)


OPERATIONS = st.one_of(*map(messages_of, typing.get_args(protocol.Op)))
EVENTS = st.one_of(*map(messages_of, typing.get_args(protocol.Event)))
LOGPROB = TokenLogprob("x", (120,), -math.inf)


@given(OPERATIONS)
@example(Generate("a", "m", "text", prompt="\ud83d\ude00 is two surrogates, and 😀 one character"))
@example(Generate("a", "m", "chat", messages=({"\ud800": ["\x00", 2**70, 1e308]},)))
@example(Generate("a", "m", "text", keep_alive_s=math.inf))
@example(Begin())
@example(Shutdown())
def test_engine_operation_is_unchanged_after_encoding_and_decoding(operation):
    assert canonical(decode_op(encode(operation))) == canonical(operation)


@given(EVENTS)
@example(Token("a", 1, "\udfff", 0, logprobs=Logprobs(LOGPROB, (LOGPROB,))))
@example(Token("a", 1, "", 0, tool_calls=(ToolCall("\ud800", {"deep": [{"null": None}]}),)))
@example(Failed("r", "context_exceeded", "long", fields={"prompt_tokens": 9, "deep": {"null": None}}))
@example(Alive(1, True, 2, (LoadedModelReport("m", "embed", 3, 4),)))
@example(Hello(1, "0.1.0", "0.32.4", "OpenBLAS"))
def test_engine_event_is_unchanged_after_encoding_and_decoding(event):
    assert canonical(decode_event(encode(event))) == canonical(event)


def test_message_with_a_long_text_is_unchanged_after_encoding_and_decoding():
    operation = Generate("a", "m", "text", prompt="ä" * (MAX_FRAME_BYTES // 4))
    assert decode_op(encode(operation)) == operation


def test_encode_of_a_message_over_the_size_limit_raises_protocol_error():
    with pytest.raises(ProtocolError, match=f"Generate: .*limit of {MAX_FRAME_BYTES}"):
        encode(Generate("a", "m", "text", prompt="a" * MAX_FRAME_BYTES))


def nested(levels: int) -> dict:
    """Return an object in `levels` further objects and lists."""
    value: dict = {}
    for level in range(levels):
        value = {"a": [value]} if level % 2 else {"a": value}
    return value


def messages_with(value: dict) -> list:
    """Return one message for each field whose nesting no type limits."""
    calls = (ToolCall("f", value),)
    return [
        Generate("a", "m", "chat", messages=(value,)),
        Generate("a", "m", "chat", tools=(value,)),
        Generate("a", "m", "chat", template=value),
        Generate("a", "m", "chat", json_schema=value),
        Token("a", 1, "", 0, tool_calls=calls),
        Done("a", "stop", Usage(1, 1), tool_calls=calls),
        Failed("a", "invalid_request", "", fields=value),
    ]


@pytest.mark.parametrize("levels", [MAX_NESTING, 100_000])
def test_encode_of_a_too_deeply_nested_message_raises_protocol_error(levels):
    for message in messages_with(nested(levels)):
        with pytest.raises(ProtocolError, match=f"JSON nested deeper than {MAX_NESTING}"):
            encode(message)


def test_message_nested_within_the_limit_can_be_encoded_and_decoded():
    for message in messages_with(nested(MAX_NESTING // 2)):
        decode = decode_op if isinstance(message, Generate) else decode_event
        assert decode(encode(message)) == message


def test_encode_refuses_too_deep_nesting_in_every_free_form_field():
    """Any further free-form field must be added to `messages_with` and to the codec."""
    structs = [
        cls for cls in vars(protocol).values() if isinstance(cls, type) and issubclass(cls, msgspec.Struct)
    ]
    unlimited = {f"{cls.__name__}.{f.name}" for cls in structs for f in fields(cls) if "dict" in str(f.type)}
    generate = {f"Generate.{name}" for name in ("messages", "tools", "template", "json_schema")}
    assert unlimited == {*generate, "ToolCall.arguments", "Failed.fields"}


@pytest.mark.parametrize(
    ("number", "complaint"),
    [
        (math.nan, "NaN is not a JSON number"),
        (math.inf, "a number is over 1.8e308"),
        (-math.inf, "a number is over 1.8e308"),
    ],
)
def test_free_form_field_with_nan_or_infinity_is_refused_and_its_path_named(number, complaint):
    """Requests with `{"x": NaN}` in a past call or `1e999` in a schema once held their slots forever."""
    value: dict = {"deep": [1, {"x": number}]}
    for message in messages_with(value):
        with pytest.raises(ProtocolError, match=rf"{type(message).__name__}: .*deep\.1\.x: {complaint}"):
            encode(message)


def test_invalid_number_in_a_wide_and_deep_field_is_found_quickly_and_reported_briefly():
    """The keys come from the client: they have any length, and there are as many as fit into a body."""
    deep: object = math.nan
    for _ in range(400):
        deep = {"k" * 1000: deep}
    wide = {"a": [0] * 300_000, "b": deep}
    with pytest.raises(ProtocolError, match="…: NaN is not a JSON number$") as caught:
        encode(Generate("a", "m", "chat", template=wide))
    assert len(str(caught.value)) < 700


def prepared(operation) -> bytes:
    """Return `operation` as a frame, in the two steps in which the gateway makes it."""
    later = {
        name: getattr(operation, name) for name in ("id", "emitted", "sampling") if hasattr(operation, name)
    }
    return prepare(operation, *later).frame(**later)


def can_be_added(operation) -> bool:
    """Return whether the fields that are added later are as the gateway has them: 64 bits, valid text."""
    added = [getattr(operation, name, None) for name in ("id", "emitted", "sampling")]
    try:
        msgspec.msgpack.encode(added)
    except (UnicodeEncodeError, OverflowError):
        return False
    return True


def test_prepare_of_an_operation_whose_seed_does_not_fit_into_64_bits_raises_protocol_error():
    with pytest.raises(ProtocolError):
        prepare(Generate("", "m", "text", sampling=Sampling(seed=2**64)), "sampling")


@given(OPERATIONS.filter(can_be_added))
@example(Generate("a", "m", "text", prompt="\ud83d", emitted=(1, 2**40), sampling=Sampling(seed=2**63 - 1)))
@example(Generate("a", "m", "chat", messages=({"x": 2**70},)))
def test_operation_encoded_in_two_steps_is_decoded_unchanged(operation):
    assert canonical(decode_op(prepared(operation))) == canonical(operation)


def test_operation_encoded_once_gives_a_correct_frame_for_each_id_and_its_emitted_tokens():
    shared = prepare(Generate("", "m", "text", prompt="hello"), "id", "emitted")
    for number in range(3):
        sent = decode_op(shared.frame(id=f"r{number}", emitted=[*range(number)]))
        assert sent == Generate(f"r{number}", "m", "text", prompt="hello", emitted=tuple(range(number)))


def test_prepare_of_an_operation_that_leaves_no_room_for_answer_tokens_in_its_frame_raises_protocol_error():
    """A request resumed after a crash carries the tokens of its answer, and must still fit into a frame."""
    with pytest.raises(ProtocolError, match="for one request"):
        prepare(Generate("", "m", "text", prompt="a" * (MAX_FRAME_BYTES - 1000)), "id")


def test_prepare_of_a_too_deeply_nested_operation_raises_protocol_error_that_names_the_field():
    with pytest.raises(ProtocolError, match=f"^tools: JSON nested deeper than {MAX_NESTING} levels"):
        prepare(Generate("", "m", "chat", tools=(nested(955),)), "id")


@pytest.mark.parametrize("foreign", [object(), b"bytes", {1, 2}, 1j, {(1, 2): 3}])
def test_encode_of_a_message_with_a_python_value_beyond_json_raises_protocol_error(foreign):
    """Some of mlx-lm's parsers evaluate a tool call's arguments as Python."""
    with pytest.raises(ProtocolError, match="Token: .* is not JSON"):
        encode(Token("a", 1, "", 0, tool_calls=(ToolCall("f", {"x": [foreign]}),)))


def frame_of(body) -> bytes:
    return pack_frame(MSGPACK, msgspec.msgpack.encode(body))


def test_whole_number_in_a_message_is_accepted_for_a_float():
    frame = frame_of({"op": "generate", "id": "a", "model": "m", "kind": "text", "sampling": {"top_p": 1}})
    assert decode_op(frame) == Generate("a", "m", "text", sampling=Sampling(top_p=1.0))


EMBED = {"op": "embed", "id": "a", "model": "m", "texts": []}
GENERATE = {"op": "generate", "id": "a", "model": "m", "kind": "text"}


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        ([1], "Expected `object`, got `array`"),
        ({}, "missing required field `op`"),
        ({"op": ["cancel"]}, r"Expected `str`.* - at `\$.op`"),
        ({"op": "dance"}, r"'dance' - at `\$.op`"),
        ({"op": "cancel"}, "missing required field `id`"),
        ({"op": "cancel", "id": 3}, r"Expected `str`, got `int` - at `\$.id`"),
        ({"op": "cancel", "id": "a", "more": 1}, "unknown field `more`"),
        ({**EMBED, "texts": "no list"}, r"Expected `array`, got `str` - at `\$.texts`"),
        ({**EMBED, "truncate": 1}, r"Expected `bool`, got `int` - at `\$.truncate`"),
        ({**GENERATE, "kind": "song"}, r"'song' - at `\$.kind`"),
        ({**GENERATE, "emitted": [1, True]}, r"got `bool` - at `\$.emitted\[1\]`"),
        ({**GENERATE, "sampling": 1}, r"Expected `object`, got `int` - at `\$.sampling`"),
        ({**GENERATE, "sampling": {"heat": 1}}, r"unknown field `heat` - at `\$.sampling`"),
    ],
)
@pytest.mark.parametrize("payload_format", [MSGPACK, JSON])
def test_message_payload_that_is_not_an_operation_raises_an_error_that_names_the_field(
    body, complaint, payload_format
):
    payload = msgspec.msgpack.encode(body) if payload_format == MSGPACK else json.dumps(body).encode()
    with pytest.raises(ProtocolError, match=complaint):
        decode_op(pack_frame(payload_format, payload))


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xff\xfe",
        b"[" * 100_000,
        b"\x91" * 100_000,
        b'"\\ud800',
        b'{"op":"cancel","id":' + b"9" * 5000 + b"}",
    ],
)
@pytest.mark.parametrize("payload_format", [MSGPACK, JSON])
def test_message_payload_that_cannot_be_parsed_raises_protocol_error(payload, payload_format):
    with pytest.raises(ProtocolError):
        decode_op(pack_frame(payload_format, payload))


def test_engine_event_is_not_decoded_as_an_operation_nor_an_operation_as_an_event():
    with pytest.raises(ProtocolError, match="op"):
        decode_op(encode(Token("a", 1, "t", 0)))
    with pytest.raises(ProtocolError, match="ev"):
        decode_event(encode(Cancel("a")))


def test_json_line_of_an_earlier_protocol_raises_an_error_that_advises_checking_versions():
    with pytest.raises(ProtocolError, match="have the same version"):
        decode_event(b'{"ev":"hello","pid":1,"version":"0.0.9","mlx_version":"0","blas":"none"}\n')


@given(OPERATIONS | EVENTS, st.data())
def test_damaged_frame_raises_protocol_error_or_is_another_message(message, data):
    frame = bytearray(encode(message))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(frame) - 1))
        match data.draw(st.sampled_from(["replace", "insert", "delete"])):
            case "replace":
                frame[at] = data.draw(st.integers(0, 255))
            case "insert":
                frame[at:at] = data.draw(st.binary(min_size=1, max_size=9))
            case "delete":
                del frame[at : data.draw(st.integers(at + 1, len(frame)))]
        if not frame:
            break
    for decode, family in ((decode_op, protocol.Op), (decode_event, protocol.Event)):
        with contextlib.suppress(ProtocolError):
            assert isinstance(decode(bytes(frame)), family)


@given(st.binary())
def test_message_payload_of_random_bytes_raises_protocol_error(payload):
    for payload_format in (MSGPACK, JSON):
        with pytest.raises(ProtocolError):
            decode_event(pack_frame(payload_format, payload))


@given(st.lists(st.lists(st.floats(width=32, allow_nan=False), min_size=3, max_size=3)))
def test_vectors_are_unchanged_after_packing_and_unpacking(rows):
    assert unpack_vectors(pack_vectors(rows), 3) == rows


@pytest.mark.parametrize(
    ("numbers", "finite"),
    [
        ([1.0, -2.0], True),
        ([3e38, 3e38], True),
        ([1.0, math.nan], False),
        ([math.inf, -math.inf], False),
        ([], True),
    ],
)
def test_are_finite_is_false_for_vectors_with_nan_or_infinity(numbers, finite):
    assert protocol.are_finite(pack_vectors([numbers])) is finite


@pytest.mark.parametrize(("text", "dim"), [("AAAA", 1), ("not base64!", 1), ("AAAAAA==", 0), ("AAAAAA==", 3)])
def test_vectors_of_invalid_base64_or_without_whole_rows_raise_protocol_error(text, dim):
    with pytest.raises(ProtocolError):
        unpack_vectors(text, dim)
