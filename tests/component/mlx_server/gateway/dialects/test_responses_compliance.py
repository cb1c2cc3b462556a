"""The cases of the Open Responses compliance suite (version 2026-04-24), in our own code.

docs/reference/responses-compliance.md maps each test to its origin. As in the suite, every answer and every
event is checked against the specification's schemas.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from websockets.sync.client import connect

from tests.bodies.responses_schemas import event_violations, violations

TERMINAL = ("response.completed", "response.failed", "response.incomplete")
RED_DOT = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAUAAAAFCAYAAACNbyblAAAAHElEQVQI12P4//8/w38GIAXDIBKE0DHxgljNBAAO"
    "9TXL0Y4OHwAAAABJRU5ErkJggg=="
)
WEATHER = {
    "type": "function",
    "name": "get_weather",
    "description": "Get the current weather for a location",
    "parameters": {
        "type": "object",
        "properties": {"location": {"type": "string", "description": "City and state"}},
        "required": ["location"],
    },
}


@pytest.fixture(scope="module")
def gateway(make_gateway: Any) -> Any:
    """A gateway whose model calls the first tool that it is offered."""
    return make_gateway({"calls_tools": True}).start().until_ok()


def message(role: str, content: Any, **more: Any) -> dict[str, Any]:
    return {"type": "message", "role": role, "content": content, **more}


def response_to(gateway: Any, **body: Any) -> dict[str, Any]:
    """Return the response, which is checked, completed, and has output."""
    answer = gateway.http.post("/v1/responses", json={"model": "chat", **body})
    assert answer.status_code == 200, answer.text
    return checked(answer.json())


def checked(response: dict[str, Any]) -> dict[str, Any]:
    assert violations("Response", response) == []
    assert response["status"] == "completed"
    assert response["output"]
    return response


def streamed(lines: Iterator[str]) -> dict[str, Any]:
    """Return the response at the end of a stream, each event of which is checked."""
    final = None
    for line in lines:
        if not line.startswith("data: ") or line == "data: [DONE]":
            continue
        event = json.loads(line.removeprefix("data: "))
        assert event_violations(event) == []
        final = event["response"] if event["type"] in TERMINAL else final
    assert final is not None
    return checked(final)


class Session:
    """One WebSocket, on which turns are taken one after the other."""

    def __init__(self, socket: Any) -> None:
        self._socket = socket

    def turn(self, **body: Any) -> dict[str, Any]:
        """Return the last event of a turn: of the response's end, or an error. Every event is checked."""
        self._socket.send(json.dumps({"type": "response.create", "model": "chat", **body}))
        while True:
            text = self._socket.recv(60)
            assert text != "[DONE]"
            event = json.loads(text)
            if event["type"] == "error":
                assert violations("WebSocketError", event) == []
                return event
            assert event_violations(event) == []
            if event["type"] in TERMINAL:
                return event

    def completed(self, **body: Any) -> dict[str, Any]:
        return checked(self.turn(**body)["response"])


@pytest.fixture
def session(gateway: Any) -> Iterator[Session]:
    with connect(f"ws://127.0.0.1:{gateway.port}/v1/responses", open_timeout=60) as socket:
        yield Session(socket)


@pytest.fixture
def another_session(gateway: Any) -> Iterator[Callable[[], Session]]:
    with connect(f"ws://127.0.0.1:{gateway.port}/v1/responses", open_timeout=60) as socket:
        yield lambda: Session(socket)


def test_basic_response_has_output_and_is_completed(gateway):
    response_to(gateway, input=[message("user", "Say hello in exactly 3 words.")])


def test_input_with_assistant_messages_that_have_a_phase_field_gets_a_completed_response(gateway):
    history = [
        message("assistant", "I should answer with the saved number.", phase="commentary"),
        message("assistant", "The number is four.", phase="final_answer"),
    ]
    response_to(gateway, input=[*history, message("user", "Repeat only the number.")])


def test_response_schema_accepts_only_commentary_and_final_answer_as_the_phase_of_an_output_message(gateway):
    response = response_to(gateway, input="hello")
    (item,) = response["output"]
    phased = [item | {"phase": phase} for phase in ("commentary", "final_answer")]
    assert violations("Response", response | {"output": phased}) == []
    assert violations("Response", response | {"output": [item | {"phase": "prologue"}]})


def test_streaming_response_has_events_of_the_schema_and_is_completed(gateway):
    body = {"model": "chat", "input": [message("user", "Count from 1 to 5.")], "stream": True}
    with gateway.http.stream("POST", "/v1/responses", json=body) as answer:
        streamed(answer.iter_lines())


def test_websocket_response_has_events_of_the_schema_and_is_completed(session):
    session.completed(input=[message("user", "Count from 1 to 3.")])


def test_websocket_sequential_responses_are_all_completed(session):
    first = session.completed(input="Reply with exactly: first", store=False)
    second = session.completed(input="Reply with exactly: second", store=False)
    assert first["id"] != second["id"]


def test_websocket_continues_a_response_that_is_not_stored(session):
    first = session.completed(input="Remember the code word: cobalt. Reply with OK.", store=False)
    second = session.completed(input="What is the code word?", previous_response_id=first["id"], store=False)
    assert second["previous_response_id"] == first["id"]


def test_websocket_after_a_reconnect_needs_the_whole_input_if_nothing_is_stored(session, another_session):
    lost = session.completed(input="Remember the code word: copper.", store=False)
    reconnected = another_session()
    missing = reconnected.turn(input="Go on.", previous_response_id=lost["id"], store=False)
    assert missing["error"]["code"] == "previous_response_not_found"
    reconnected.completed(input=[message("user", "Start anew.")], store=False)


def test_websocket_with_an_unknown_previous_response_gets_an_error(session):
    missing = session.turn(input="This should fail.", previous_response_id="resp_missing", store=False)
    assert (missing["status"], missing["error"]["code"]) == (400, "previous_response_not_found")


def test_websocket_continuation_that_failed_cannot_be_continued(session):
    first = session.completed(input="Remember the code word: ember.", store=False)
    output = {"type": "function_call_output", "call_id": "call_missing", "output": "There is no such call."}
    failed = session.turn(input=[output], previous_response_id=first["id"], store=False)
    assert failed["type"] == "error"
    again = session.turn(input="Go on.", previous_response_id=first["id"], store=False)
    assert again["error"]["code"] == "previous_response_not_found"


def test_websocket_request_that_begins_with_a_compacted_conversation_is_completed(gateway, session):
    conversation = [
        message("user", [{"type": "input_text", "text": "Remember the compaction code word: slate."}]),
        message("assistant", [{"type": "output_text", "text": "OK."}]),
        message("user", [{"type": "input_text", "text": "Compress this conversation."}]),
    ]
    compacted = gateway.http.post(
        "/v1/responses/compact", json={"model": "chat", "input": conversation}
    ).json()
    assert violations("CompactedResponse", compacted) == []
    going_on = [*compacted["output"], message("user", "Continue from here.")]
    session.completed(input=going_on, store=False, tools=[])


def test_system_prompt_is_accepted(gateway):
    prompt = message("system", "You are a pirate. Always respond in pirate speak.")
    response_to(gateway, input=[prompt, message("user", "Say hello.")])


def test_tool_calling_makes_a_function_call(gateway):
    question = [message("user", "What's the weather like in San Francisco?")]
    output = response_to(gateway, input=question, tools=[WEATHER])["output"]
    assert "function_call" in {item["type"] for item in output}


def test_image_input_is_accepted(gateway):
    content = [
        {"type": "input_text", "text": "What do you see in this image?"},
        {"type": "input_image", "image_url": RED_DOT},
    ]
    response_to(gateway, input=[message("user", content)])


def test_multi_turn_history_is_accepted(gateway):
    history = [message("user", "My name is Alice."), message("assistant", "Hello Alice!")]
    response_to(gateway, input=[*history, message("user", "What is my name?")])


def test_response_to_a_compaction_request_has_a_compaction_item(gateway):
    conversation = [
        message("user", "We agreed to launch on Tuesday and notify support first."),
        message("assistant", "Understood. The launch is Tuesday."),
    ]
    body = {"model": "chat", "prompt_cache_key": "compact-test", "input": conversation}
    answer = gateway.http.post("/v1/responses/compact", json=body)
    assert answer.status_code == 200, answer.text
    compacted = answer.json()
    assert violations("CompactedResponse", compacted) == []
    assert [item["type"] for item in compacted["output"]] == ["message", "compaction"]


def test_compaction_request_without_a_model_is_refused(gateway):
    body = {"input": [message("user", "Compact this conversation.")]}
    answer = gateway.http.post("/v1/responses/compact", json=body)
    assert answer.status_code in (400, 422)
    assert "model" in answer.json()["error"]["message"]


# Cases of the suite's earlier versions, and of its WebSocket draft.


def test_streamed_response_with_a_function_call_has_all_events_of_the_call(gateway):
    question = [message("user", "What's the weather like in San Francisco?")]
    body = {"model": "chat", "input": question, "tools": [WEATHER], "stream": True}
    with gateway.http.stream("POST", "/v1/responses", json=body) as answer:
        text = answer.read().decode()
    names = [line.removeprefix("event: ") for line in text.splitlines() if line.startswith("event: ")]
    for needed in ("output_item.added", "function_call_arguments.delta", "function_call_arguments.done"):
        assert f"response.{needed}" in names
    assert names[-2:] == ["response.output_item.done", "response.completed"]


def test_response_that_continues_a_function_call_with_the_functions_output_is_completed(gateway):
    choice = {"type": "function", "name": "get_weather"}
    asked = response_to(gateway, input="Use the tool.", tools=[WEATHER], tool_choice=choice)
    (call,) = asked["output"]
    output = {"type": "function_call_output", "call_id": call["call_id"], "output": "64 degrees and clear"}
    response_to(gateway, input=[output], previous_response_id=asked["id"])


def test_file_input_is_accepted(gateway):
    file = {
        "type": "input_file",
        "filename": "a.pdf",
        "file_data": "data:application/pdf;base64,JVBERi0xLjE=",
    }
    content = [{"type": "input_text", "text": "Answer with the title of the file."}, file]
    response_to(gateway, input=[message("user", content)])


def test_previous_response_id_continues_a_stored_response(gateway):
    first = response_to(gateway, input="Remember this code word: papaya.")
    response_to(gateway, input="What code word?", previous_response_id=first["id"])


def test_websocket_response_made_with_generate_set_to_false_can_be_continued(session):
    warm = session.turn(input="You are a helper.", generate=False, store=False)["response"]
    assert violations("Response", warm) == []
    session.completed(input="Say hello.", previous_response_id=warm["id"], store=False)
