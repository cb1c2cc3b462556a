"""Messages and tools of any form are brought into the form that templates expect, or refused by field."""

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_server.engine.errors import RequestError
from mlx_server.engine.generation.prompts.messages import (
    MAX_NESTING,
    check_nesting,
    check_tools,
    normalize_messages,
)
from mlx_server.protocol import Generate

ANYTHING: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["function", "name", "arguments", "content", "tool_calls", "role", "type"]), inner
        )
    ),
    max_leaves=12,
)


def normalized(message: Any) -> dict[str, Any]:
    (result,) = normalize_messages([message])
    return result


def assistant(calls: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": "", "tool_calls": calls}


def test_tool_call_arguments_in_a_string_become_an_object_in_a_copy_of_the_message():
    call: dict = {"id": "c1", "function": {"name": "weather", "arguments": '{"city": "Oslo"}'}}
    message = normalized({"role": "assistant", "content": None, "tool_calls": [call]})
    assert message["content"] == ""
    assert message["tool_calls"][0]["function"]["arguments"] == {"city": "Oslo"}
    assert message["tool_calls"][0]["id"] == "c1"
    assert call["function"]["arguments"] == '{"city": "Oslo"}'  # the request is not changed


def test_tool_call_arguments_that_are_an_object_are_unchanged():
    message = normalized({"role": "assistant", "tool_calls": [{"function": {"arguments": {"a": 1}}}]})
    assert message["tool_calls"][0]["function"]["arguments"] == {"a": 1}


def test_message_content_that_is_a_list_of_parts_is_unchanged():
    parts = [{"type": "text", "text": "Hi"}]
    assert normalized({"role": "user", "content": parts})["content"] == parts


@pytest.mark.parametrize("arguments", ["{", "[" * 100_000, "undefined"])
def test_tool_call_arguments_that_are_not_json_are_refused_with_the_tools_name(arguments):
    with pytest.raises(RequestError, match="'weather' is not JSON") as caught:
        normalized(assistant([{"function": {"name": "weather", "arguments": arguments}}]))
    assert caught.value.code == "invalid_request"


@pytest.mark.parametrize(
    ("message", "field"),
    [
        (assistant([{"function": "get_weather"}]), "messages.0.tool_calls.0.function must be an object"),
        (
            assistant([{"function": ["get_weather", {}]}]),
            "messages.0.tool_calls.0.function must be an object",
        ),
        (assistant([{"function": 5}]), "it is a number"),
        (
            assistant([{"function": {"name": {}}}, {"function": {"name": 7}}]),
            "tool_calls.1.function.name must",
        ),
        (assistant(["get_weather"]), "messages.0.tool_calls.0 must be an object, and it is a string"),
        (assistant("get_weather"), "messages.0.tool_calls must be a list, and it is a string"),
        (assistant({"function": {}}), "messages.0.tool_calls must be a list, and it is an object"),
        ({"role": "user", "content": 5}, "messages.0.content must be a string or a list of parts"),
        ({"role": "user", "content": {"text": "Hi"}}, "messages.0.content must be a string or a list"),
    ],
)
def test_invalid_chat_message_is_refused_and_its_field_named(message, field):
    """A past tool call whose `function` was a string once ended three engines and opened the breaker."""
    with pytest.raises(RequestError) as caught:
        normalized(message)
    assert field in str(caught.value)
    assert caught.value.code == "invalid_request"


@pytest.mark.parametrize(
    ("tool", "field"),
    [
        ({"function": "weather"}, "tools.1.function must be an object, and it is a string"),
        ({"function": {}}, "tools.1.function.name must be a string, and it is missing"),
        ({"function": {"name": 3}}, "tools.1.function.name must be a string, and it is a number"),
        ("weather", "tools.1 must be an object"),
    ],
)
def test_tool_without_a_function_name_is_refused_and_its_field_named(tool, field):
    with pytest.raises(RequestError) as caught:
        check_tools([{"type": "function", "function": {"name": "weather"}}, tool])
    assert field in str(caught.value)


@given(st.lists(ANYTHING, max_size=3), st.lists(ANYTHING, max_size=3))
def test_messages_of_any_json_are_normalized_or_refused_as_an_invalid_request(messages, tools):
    with contextlib.suppress(RequestError):
        normalize_messages(messages)
    with contextlib.suppress(RequestError):
        check_tools(tools)


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize("field", ["messages", "tools", "template"])
def test_too_deep_nesting_in_messages_tools_or_template_variables_is_refused(field):
    def op(levels: int) -> Generate:
        value: Any = {"x": nested(levels)}
        given: dict[str, Any] = {field: value if field == "template" else (value,)}
        return Generate("r", "m", "chat", **given)

    check_nesting(op(MAX_NESTING - 4))
    with pytest.raises(RequestError, match=f"{field}.* nested deeper than {MAX_NESTING} levels"):
        check_nesting(op(MAX_NESTING))
