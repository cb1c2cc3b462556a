"""The events of a response: complete, in order, numbered, and as the specification has them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_server import protocol
from mlx_server.gateway.dialects.answer_parts import AnswerPart, AnswerToolCall
from mlx_server.gateway.dialects.bodies import validated
from mlx_server.gateway.dialects.responses.events import Event, ResponseEvents
from mlx_server.gateway.dialects.responses.messages import text_of_opaque
from mlx_server.gateway.dialects.responses.offered_tools import offered_tools
from mlx_server.gateway.dialects.responses.output_items import OutputItems, OutputOptions
from mlx_server.gateway.dialects.responses.resource import new_response
from mlx_server.gateway.dialects.responses.schema import CreateBody
from mlx_server.gateway.errors import BadRequest, ServerFault
from tests.bodies.responses_schemas import event_violations, violations

NOW = 1_000_000_000


def done(reason: Any = "stop") -> AnswerPart:
    usage = protocol.Usage(7, 3, cached_tokens=4, reasoning_tokens=2)
    return AnswerPart(done=protocol.Done("r", reason, usage))


def call(name: str = "weather", number: int = 0) -> AnswerPart:
    return AnswerPart(tool_calls=(AnswerToolCall(f"call_{number}", number, name, {"city": "Oslo"}),))


def events_of(body: dict[str, Any] | None = None, options: OutputOptions | None = None) -> ResponseEvents:
    valid = validated({"model": "m", "input": "hello", **(body or {})}, CreateBody)
    offered = offered_tools(valid.tools, valid.tool_choice)
    response = new_response(valid, offered, "resp_1", NOW, is_stored=True)
    return ResponseEvents(response, OutputItems("1", options or OutputOptions()))


def written(events: ResponseEvents, *parts: AnswerPart) -> list[dict[str, Any]]:
    made = events.begin()
    for part in parts:
        made += events.part(part, NOW + 5)
    return read(made)


def read(events: list[Event]) -> list[dict[str, Any]]:
    found = [json.loads(event.data) for event in events]
    assert [event["type"] for event in found] == [event.type for event in events]
    return found


def types(events: list[dict[str, Any]]) -> list[str]:
    return [event["type"].removeprefix("response.") for event in events]


def test_responses_api_stream_of_a_text_has_every_event_in_order():
    found = written(events_of(), AnswerPart("Hel"), AnswerPart("lo"), done())
    assert types(found) == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]
    assert [event["sequence_number"] for event in found] == list(range(10))
    assert [event_violations(event) for event in found] == [[]] * 10
    response = found[-1]["response"]
    assert (response["status"], response["completed_at"]) == ("completed", NOW + 5)
    assert response["output"][0]["content"][0]["text"] == "Hello"
    assert response["usage"] == {
        "input_tokens": 7,
        "input_tokens_details": {"cached_tokens": 4},
        "output_tokens": 3,
        "output_tokens_details": {"reasoning_tokens": 2},
        "total_tokens": 10,
    }


def test_responses_api_stream_has_separate_output_items_for_thinking_text_and_tool_calls():
    found = written(events_of(), AnswerPart(thinking="hm"), AnswerPart("I look."), call(), done("tool_calls"))
    assert [event_violations(event) for event in found] == [[]] * len(found)
    assert [name for name in types(found) if name.startswith("reasoning")] == [
        "reasoning_summary_part.added",
        "reasoning_summary_text.delta",
        "reasoning_summary_text.done",
        "reasoning_summary_part.done",
    ]
    assert types(found)[-5:] == [
        "output_item.added",
        "function_call_arguments.delta",
        "function_call_arguments.done",
        "output_item.done",
        "completed",
    ]
    thought, said, called = found[-1]["response"]["output"]
    assert thought["summary"] == [{"type": "summary_text", "text": "hm"}]
    assert said["content"][0]["text"] == "I look."
    assert (called["name"], json.loads(called["arguments"])) == ("weather", {"city": "Oslo"})
    assert called["call_id"] == "call_0"


def test_responses_api_stream_of_a_truncated_answer_ends_with_an_incomplete_item_and_response():
    found = written(events_of(), AnswerPart("Hel"), done("length"))
    assert found[-2]["item"]["status"] == "incomplete"
    response = found[-1]["response"]
    assert (found[-1]["type"], response["status"]) == ("response.incomplete", "incomplete")
    assert response["incomplete_details"] == {"reason": "max_output_tokens"}
    assert response["completed_at"] is None


def test_responses_api_stream_of_an_empty_answer_has_a_message_without_text():
    (item,) = written(events_of(), done())[-1]["response"]["output"]
    assert item["content"] == [{"type": "output_text", "text": "", "annotations": [], "logprobs": []}]


def test_responses_api_stream_that_fails_ends_with_an_error_event_and_a_failed_response():
    events = events_of()
    before = written(events, AnswerPart("Hel"))
    found = read(events.failed(ServerFault("engine_crashed", "The engine crashed.")))
    assert types(found)[0] == "error"
    assert types(found)[-1] == "failed"
    assert (found[0]["code"], found[0]["error"]["code"]) == ("engine_crashed", "engine_crashed")
    assert found[0]["sequence_number"] == len(before)
    assert found[-1]["response"]["error"] == {"code": "engine_crashed", "message": "The engine crashed."}
    assert found[-1]["response"]["output"][0]["status"] == "incomplete"
    assert [event_violations(event) for event in found] == [[]] * len(found)


def test_responses_api_prompt_that_is_too_long_has_the_error_code_that_makes_codex_compact():
    events = events_of()
    found = read(events.failed(BadRequest("context_exceeded", "The prompt has 9 tokens.")))
    assert found[-1]["response"]["error"]["code"] == "context_length_exceeded"


def test_cancelled_response_has_the_output_up_to_its_cancellation():
    events = events_of()
    written(events, AnswerPart("Hel"))
    found = read(events.cancelled())
    assert found[-1]["response"]["status"] == "cancelled"
    assert events.is_ended


def test_responses_api_in_progress_event_sent_while_waiting_repeats_the_output_so_far():
    events = events_of()
    written(events, AnswerPart("Hel"))
    (found,) = read([events.still_in_progress()])
    assert event_violations(found) == []
    assert found["response"]["status"] == "in_progress"
    assert found["response"]["output"][0]["content"][0]["text"] == "Hel"


def test_responses_api_call_of_a_forbidden_tool_becomes_text_and_calls_beyond_the_limit_are_dropped():
    only_time = events_of(options=OutputOptions(allowed=frozenset({"time"})))
    (item,) = written(only_time, call(), done())[-1]["response"]["output"]
    assert json.loads(item["content"][0]["text"]) == {"name": "weather", "arguments": {"city": "Oslo"}}
    one_call = events_of(options=OutputOptions(most_calls=1))
    output = written(one_call, call(), call("time", 1), done("tool_calls"))[-1]["response"]["output"]
    assert [item["name"] for item in output] == ["weather"]


def test_responses_api_call_of_a_custom_tool_has_plain_text_as_input():
    options = OutputOptions(custom=frozenset({"apply_patch"}))
    called = AnswerToolCall("call_0", 0, "apply_patch", {"input": "*** Begin"})
    found = written(events_of(options=options), AnswerPart(tool_calls=(called,)), done("tool_calls"))
    expected = ["custom_tool_call_input.delta", "custom_tool_call_input.done"]
    assert [name for name in types(found) if "custom" in name] == expected
    (item,) = found[-1]["response"]["output"]
    assert (item["type"], item["call_id"], item["input"]) == ("custom_tool_call", "call_0", "*** Begin")


def test_responses_api_reasoning_is_returned_as_encrypted_content_if_the_client_asks():
    events = events_of(options=OutputOptions(carries_thoughts=True))
    item = written(events, AnswerPart(thinking="hm"), AnswerPart("x"), done())[-1]["response"]["output"][0]
    assert text_of_opaque(item["encrypted_content"]) == "hm"


def test_responses_api_logprobs_are_in_the_delta_event_the_done_event_and_the_final_response():
    token = protocol.TokenLogprob("Hi", (72, 105), -0.5)
    part = AnswerPart("Hi", logprobs=(protocol.Logprobs(token, (token,)),))
    found = written(events_of(), part, done())
    row = {"token": "Hi", "logprob": -0.5, "bytes": [72, 105]}
    expected = [row | {"top_logprobs": [row]}]
    assert [event["logprobs"] for event in found if "logprobs" in event] == [expected, expected]
    assert found[-1]["response"]["output"][0]["content"][0]["logprobs"] == expected


FIELDS: dict[str, Any] = {
    "instructions": "Be brief.",
    "previous_response_id": "resp_0",
    "tools": [{"type": "function", "name": "f", "parameters": {"type": "object"}}, {"type": "web_search"}],
    "tool_choice": {"type": "function", "name": "f"},
    "parallel_tool_calls": False,
    "max_tool_calls": 2,
    "max_output_tokens": 20,
    "temperature": 0,
    "top_p": 0.5,
    "presence_penalty": 1,
    "frequency_penalty": -1.5,
    "top_logprobs": 2,
    "text": {
        "format": {"type": "json_schema", "name": "n", "schema": {"type": "object"}, "strict": True},
        "verbosity": "low",
    },
    "reasoning": {"effort": "high", "summary": "auto"},
    "truncation": "auto",
    "metadata": {"a": "b"},
    "user": "u",
    "safety_identifier": "s",
    "prompt_cache_key": "k",
}


def test_response_repeats_its_request_parameters_in_the_form_of_openais_specification():
    response = written(events_of(FIELDS), done())[-1]["response"]
    assert violations("Response", response) == []
    same = [name for name in FIELDS if name not in ("tools", "text")]
    assert {name: response[name] for name in same} == {name: FIELDS[name] for name in same}
    assert response["tools"] == [
        {
            "type": "function",
            "name": "f",
            "description": None,
            "parameters": {"type": "object"},
            "strict": None,
        }
    ]
    assert response["text"]["format"]["schema"] == {"type": "object"}


@pytest.mark.parametrize(
    "choice",
    ["auto", "none", "required", {"type": "allowed_tools", "tools": [{"type": "function", "name": "f"}]}],
)
def test_response_shows_every_tool_choice_in_the_form_of_openais_specification(choice):
    response = written(events_of(FIELDS | {"tool_choice": choice}), done())[-1]["response"]
    assert violations("Response", response) == []


PARTS = st.one_of(
    st.builds(AnswerPart, st.text(min_size=1, max_size=3)),
    st.builds(lambda text: AnswerPart(thinking=text), st.text(min_size=1, max_size=3)),
    st.sampled_from([call(), call("time", 1)]),
)


@given(st.lists(PARTS, max_size=8), st.sampled_from(["stop", "length", "tool_calls"]))
def test_responses_api_events_of_any_answer_let_a_client_rebuild_the_response(parts, reason):
    """Build the output from the events as a client does, and compare it with the response at the end."""
    found = written(events_of(), *parts, done(reason))
    assert [event["sequence_number"] for event in found] == list(range(len(found)))
    assert all(event_violations(event) == [] for event in found)
    built: list[dict[str, Any]] = []
    texts: dict[int, str] = {}
    for event in found:
        match event["type"].removeprefix("response."):
            case "output_item.added":
                assert event["output_index"] == len(built)
                assert not built or built[-1]["status"] != "in_progress"
                built.append(event["item"])
            case "output_text.delta" | "reasoning_summary_text.delta" | "function_call_arguments.delta":
                assert event["item_id"] == built[-1]["id"]
                texts[event["output_index"]] = texts.get(event["output_index"], "") + event["delta"]
            case "output_text.done" | "reasoning_summary_text.done":
                assert event["text"] == texts.get(event["output_index"], "")
            case "output_item.done":
                assert event["item"]["id"] == built[-1]["id"]
                built[event["output_index"]] = event["item"]
    assert built == found[-1]["response"]["output"]
    assert built
    assert all(item["status"] == "completed" for item in built[:-1])
