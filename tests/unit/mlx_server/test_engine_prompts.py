"""Messages, as chat templates expect them."""

import pytest

from mlx_server.engine.errors import RequestError
from mlx_server.engine.prompts import normalised


def test_arguments_given_as_a_string_become_an_object():
    call: dict = {"id": "c1", "function": {"name": "weather", "arguments": '{"city": "Oslo"}'}}
    message = normalised({"role": "assistant", "content": None, "tool_calls": [call]})
    assert message["content"] == ""
    assert message["tool_calls"][0]["function"]["arguments"] == {"city": "Oslo"}
    assert message["tool_calls"][0]["id"] == "c1"
    assert call["function"]["arguments"] == '{"city": "Oslo"}'  # the request is left as it was


def test_arguments_given_as_an_object_stay():
    message = normalised({"role": "assistant", "tool_calls": [{"function": {"arguments": {"a": 1}}}]})
    assert message["tool_calls"][0]["function"]["arguments"] == {"a": 1}


def test_arguments_that_are_no_json_are_refused_by_name():
    with pytest.raises(RequestError, match="weather") as caught:
        normalised({"tool_calls": [{"function": {"name": "weather", "arguments": "{"}}]})
    assert caught.value.code == "invalid_request"
