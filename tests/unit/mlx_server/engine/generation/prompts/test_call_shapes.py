"""Templates that write one call in a message, or short ids, get each result with the call it answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from mlx_server.engine.generation.prompts.call_shapes import (
    split_calls,
    with_results_in_call_order,
    with_short_ids,
)

Message = dict[str, Any]
QUESTION: Message = {"role": "user", "content": "x"}


def calls(*names: str, ids: Sequence[str | None] = ()) -> Message:
    made = []
    for number, name in enumerate(names):
        call: Message = {"type": "function", "function": {"name": name, "arguments": {}}}
        given = ids[number] if number < len(ids) else None
        made.append(call | ({"id": given} if given else {}))
    return {"role": "assistant", "content": "", "tool_calls": made}


def result(content: str, **fields: str) -> Message:
    return {"role": "tool", "content": content, **fields}


def pairs_by_id(messages: Sequence[Message]) -> list[tuple[str | None, str]]:
    """Return each result with the name of the call that has the same short id."""
    fitted = with_short_ids(messages)
    names = {call["id"]: call["function"]["name"] for each in fitted for call in each.get("tool_calls", ())}
    return [(names.get(each["tool_call_id"]), each["content"]) for each in fitted if each["role"] == "tool"]


def pairs_by_place(messages: Sequence[Message]) -> list[tuple[str | None, str]]:
    """Return each result with the name of the only call in the message directly before it."""
    pairs: list[tuple[str | None, str]] = []
    called: str | None = None
    for each in split_calls(messages):
        if each["role"] == "tool":
            pairs.append((called, each["content"]))
            called = None
        else:
            called = each["tool_calls"][0]["function"]["name"] if each.get("tool_calls") else None
    return pairs


@pytest.mark.parametrize("pairs", [pairs_by_id, pairs_by_place])
@pytest.mark.parametrize(
    ("made", "results"),
    [
        (calls("weather", "clock"), [result("12:00", name="clock"), result("rain", name="weather")]),
        (calls("weather", "clock"), [result("12:00", name="clock"), result("rain")]),
        (calls("weather", "clock"), [result("rain"), result("12:00")]),
        (calls("weather", "clock"), [result("rain", name="server.weather"), result("12:00", name="clock")]),
        (
            calls("weather", "clock", ids=("a", "b")),
            [result("12:00", tool_call_id="b"), result("rain", tool_call_id="a")],
        ),
        (
            calls("weather", "clock", ids=("a",)),
            [result("12:00", name="clock"), result("rain", tool_call_id="a")],
        ),
        (calls("weather", "clock", ids=("a", "b")), [result("12:00", name="clock"), result("rain")]),
    ],
    ids=["names", "a name", "order", "unknown name", "ids", "an id", "ids of the calls only"],
)
def test_results_without_ids_are_paired_with_calls_by_name_and_then_by_order(pairs, made, results):
    """Ollama's clients send no ids. The results were paired by order only, and the model read the time as the
    weather.
    """
    assert sorted(pairs([QUESTION, made, *results])) == [("clock", "12:00"), ("weather", "rain")]


@pytest.mark.parametrize("pairs", [pairs_by_id, pairs_by_place])
def test_results_of_two_calls_of_one_function_without_ids_are_paired_in_their_order(pairs):
    chat = [calls("weather", "weather"), result("rain", name="weather"), result("sun", name="weather")]
    assert pairs(chat) == [("weather", "rain"), ("weather", "sun")]
    if pairs is pairs_by_id:
        first, second = with_short_ids(chat)[0]["tool_calls"]
        assert [each["tool_call_id"] for each in with_short_ids(chat)[1:]] == [first["id"], second["id"]]


def test_call_without_a_result_does_not_shift_the_ids_of_later_results():
    """All later results got the id of the call before theirs, once the user had interrupted a call."""
    interrupted = [calls("weather"), QUESTION, calls("clock"), result("12:00", name="clock"), QUESTION]
    again = [calls("map"), result("here")]
    assert pairs_by_id([QUESTION, *interrupted, *again]) == [("clock", "12:00"), ("map", "here")]


def test_tool_result_that_answers_no_call_is_paired_with_no_call_and_keeps_its_place():
    chat = [result("early"), calls("weather", ids=("a",)), result("rain", tool_call_id="a")]
    more = [result("other", tool_call_id="b"), QUESTION, result("late")]
    assert pairs_by_id([*chat, *more]) == [
        (None, "early"),
        ("weather", "rain"),
        (None, "other"),
        (None, "late"),
    ]
    two = [calls("weather", "clock", ids=("a", "b")), result("other", tool_call_id="c")]
    assert [each["role"] for each in split_calls(two)] == ["assistant", "assistant", "tool"]


def test_results_in_another_order_than_their_calls_are_put_into_the_order_of_the_calls():
    """Many templates write neither ids nor names, so that the model read the time as the weather."""
    made = calls("weather", "clock", ids=("a", "b"))
    rain, time = result("rain", tool_call_id="a"), result("12:00", tool_call_id="b")
    other = result("other", tool_call_id="c")
    assert with_results_in_call_order([QUESTION, made, other, time, rain, QUESTION]) == [
        *(QUESTION, made, rain, time, other, QUESTION)
    ]
    for chat in ([QUESTION, made, rain, time], [QUESTION, made, time, QUESTION], [rain, QUESTION]):
        assert with_results_in_call_order(chat) == chat


@pytest.mark.parametrize(
    "results",
    [
        [result("rain"), result("12:00")],
        [result("12:00", name="clock"), result("rain", name="weather")],
    ],
    ids=["order", "names"],
)
def test_results_of_calls_in_adjacent_messages_are_paired_with_these_calls(results):
    """A client writes each call as a message of its own. The first result got the id of the second call, and
    the second result none.
    """
    chat = [QUESTION, calls("weather"), calls("clock"), *results]
    assert sorted(pairs_by_id(chat)) == [("clock", "12:00"), ("weather", "rain")]
    assert [each["content"] for each in with_results_in_call_order(chat)[3:]] == ["rain", "12:00"]
    mixed = [calls("map", "weather"), calls("clock"), result("here", name="map"), *results]
    assert pairs_by_place(mixed) == [("map", "here"), ("weather", "rain"), ("clock", "12:00")]


def test_results_of_calls_with_ids_in_adjacent_messages_keep_their_order():
    chat = [calls("weather", ids=("a",)), calls("clock", ids=("b",))]
    chat += [result("rain", tool_call_id="a"), result("12:00", tool_call_id="b"), QUESTION]
    assert with_results_in_call_order(chat) == split_calls(chat) == chat


def test_tool_results_followed_by_their_images_keep_their_order():
    """The images of the results stood in the order of the results that the client had sent."""
    made = calls("weather", "clock", ids=("a", "b"))
    results = [result("12:00", tool_call_id="b"), result("rain", tool_call_id="a")]
    images: Message = {"role": "user", "content": [{"type": "image"}, {"type": "image"}]}
    chat = [QUESTION, made, *results, images]
    assert with_results_in_call_order(chat) == chat
    assert with_results_in_call_order([*chat[:4], QUESTION]) == [QUESTION, made, *results[::-1], QUESTION]
