"""The Responses API over HTTP and WebSocket, with a fake engine that fails as its prompt says."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from tests.bodies.mutated_bodies import mutants
from tests.bodies.responses_schemas import event_violations, violations
from tests.component.mlx_server.gateway.conftest import OWN_BEGIN_OF_STREAMS

UNTIMED = settings(deadline=None, suppress_health_check=list(HealthCheck), phases=[Phase.generate])
TERMINAL = ("response.completed", "response.incomplete", "response.failed")
WEATHER = {"type": "function", "name": "weather", "parameters": {"properties": {"city": {"type": "string"}}}}


def ask(gateway: Any, content: Any, **more: Any) -> Any:
    return gateway.http.post("/v1/responses", json={"model": "chat", "input": content, **more})


def text_in(response: dict[str, Any]) -> str:
    return "".join(part["text"] for item in response["output"] for part in item.get("content", ()))


def events_in(lines: Iterator[str]) -> Iterator[dict[str, Any]]:
    for line in lines:
        if line.startswith("data: ") and line != "data: [DONE]":
            yield json.loads(line.removeprefix("data: "))


def stream(
    gateway: Any, content: Any, on_event: Any = lambda event: None, **more: Any
) -> list[dict[str, Any]]:
    body = {"model": "chat", "input": content, "stream": True, **more}
    found = []
    with gateway.http.stream("POST", "/v1/responses", json=body) as answer:
        assert answer.status_code == 200, answer.read()
        for event in events_in(answer.iter_lines()):
            found.append(event)
            on_event(event)
    assert [event["sequence_number"] for event in found] == list(range(len(found)))
    assert [event_violations(event) for event in found] == [[]] * len(found)
    return found


def test_each_frame_of_a_response_stream_names_its_event_type_and_the_last_frame_is_done(gateway):
    body = {"model": "chat", "input": "tokens=2", "stream": True}
    answer = gateway.http.post("/v1/responses", json=body)
    assert answer.headers["content-type"].startswith("text/event-stream")
    frames = answer.text.removesuffix("\n\n").split("\n\n")
    assert frames[-1] == "data: [DONE]"
    for frame in frames[:-1]:
        name, data = frame.split("\n")
        assert name == f"event: {json.loads(data.removeprefix('data: '))['type']}"
    assert answer.headers["x-request-id"]


def test_response_stream_when_the_engine_is_killed_twice_is_complete(gateway, text_of):
    content = "responses tokens=80 step_ms=5"
    deltas: list[str] = []

    def kill(event: dict[str, Any]) -> None:
        if event["type"] == "response.output_text.delta":
            deltas.append(event["delta"])
            if len(deltas) in (10, 50):
                gateway.kill_engine()

    found = stream(gateway, content, kill)
    assert "".join(deltas) == text_of(content, 80) == text_in(found[-1]["response"])
    assert found[-1]["response"]["usage"]["output_tokens"] == 80
    assert len({event["response"]["id"] for event in found if "response" in event}) == 1


def test_response_when_the_engine_dies_is_complete(gateway, text_of):
    content = "whole tokens=20 die_at=9 once=1"
    answer = ask(gateway, content).json()
    assert (answer["status"], text_in(answer)) == ("completed", text_of(content, 20))


def test_response_that_fails_after_its_first_output_ends_with_error_and_failed_events(gateway):
    found = stream(gateway, "poison tokens=9 abort_at=2")
    assert [event["type"] for event in found[-5:]] == [
        "error",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.failed",
    ]
    assert found[-1]["response"]["error"]["code"] == "engine_crashed"
    failed = found[-1]["response"]
    assert gateway.http.get(f"/v1/responses/{failed['id']}").json() == failed


@pytest.mark.parametrize("is_streamed", [False, True])
def test_response_that_the_engine_refuses_is_a_400_with_and_without_streaming(gateway, is_streamed):
    answer = ask(gateway, "fail=invalid_request", stream=is_streamed)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_request")


FIRST_EVENT_WITHIN_S = 1.8
TRIES = 3  # a gateway that is late is late each time, but a busy machine may keep a client waiting once


class FirstEvent:
    """A callback for `stream`: it notes after how many seconds the first event came, and calls `go_on`."""

    def __init__(self, go_on: Callable[[], object]) -> None:
        self.seconds: list[float] = []
        self._go_on, self._began = go_on, time.monotonic()

    def __call__(self, event: dict[str, Any]) -> None:
        self.seconds.append(time.monotonic() - self._began)
        self._go_on()


def test_response_stream_sends_its_first_event_while_it_waits_behind_another_request(make_gateway, text_of):
    gateway = make_gateway(VESTAL_MLX__MAX_RUNNING="1", **OWN_BEGIN_OF_STREAMS).start().until_ok()
    took_s = []
    for _ in range(TRIES):
        with gateway.held():
            ask(gateway, "first tokens=30 hold_at=1", background=True)
            first = FirstEvent(gateway.go_on)  # the other request goes on
            found = stream(gateway, "second tokens=3", first)
        assert text_in(found[-1]["response"]) == text_of("second tokens=3", 3)
        took_s.append(first.seconds[0])
        if took_s[-1] < FIRST_EVENT_WITHIN_S:
            break
    assert min(took_s) < FIRST_EVENT_WITHIN_S


def test_response_stream_sends_its_first_event_while_the_engine_starts(make_gateway, text_of):
    took_s = []
    for _ in range(TRIES):
        gateway = make_gateway({"starts_held": True}, **OWN_BEGIN_OF_STREAMS).start()
        with gateway.held():
            gateway.until(lambda it=gateway: it.health()["status"] == "starting", "it listens")
            first = FirstEvent(gateway.go_on)  # the engine starts
            found = stream(gateway, "early tokens=3", first)
        assert text_in(found[-1]["response"]) == text_of("early tokens=3", 3)
        took_s.append(first.seconds[0])
        if took_s[-1] < FIRST_EVENT_WITHIN_S:
            break
    assert min(took_s) < FIRST_EVENT_WITHIN_S


def test_response_that_reaches_its_length_limit_has_the_status_incomplete(gateway):
    answer = ask(gateway, "tokens=9", max_output_tokens=3).json()
    assert answer["status"] == "incomplete"
    assert answer["incomplete_details"] == {"reason": "max_output_tokens"}
    assert violations("Response", answer) == []


def test_response_can_be_read_continued_and_deleted_and_its_input_listed(gateway):
    first = ask(gateway, "first tokens=2", instructions="Be brief.").json()
    second = ask(gateway, "second tokens=2", previous_response_id=first["id"]).json()
    assert (second["previous_response_id"], second["instructions"]) == (first["id"], None)
    path = f"/v1/responses/{second['id']}"
    assert gateway.http.get(path).json() == second
    listed = gateway.http.get(f"{path}/input_items", params={"order": "asc"}).json()
    assert [item["role"] for item in listed["data"]] == ["user", "assistant", "user"]
    assert text_in({"output": listed["data"][:1]}) == "first tokens=2"
    assert not listed["has_more"]
    assert gateway.http.delete(path).json() == {"id": second["id"], "object": "response", "deleted": True}
    for method, where in (
        ("GET", path),
        ("DELETE", path),
        ("POST", f"{path}/cancel"),
        ("GET", f"{path}/input_items"),
    ):
        answer = gateway.http.request(method, where)
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "response_not_found"), where
        assert "keep_answers_s" in answer.json()["error"]["message"]


def test_response_with_an_unknown_previous_response_id_is_a_400_that_names_the_field(gateway):
    answer = ask(gateway, "x", previous_response_id="resp_unknown")
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (400, "previous_response_not_found")
    assert error["param"] == "previous_response_id"


def test_response_with_store_false_is_not_stored(gateway):
    answer = ask(gateway, "tokens=1", store=False).json()
    assert answer["store"] is False
    assert gateway.http.get(f"/v1/responses/{answer['id']}").status_code == 404


def test_response_is_not_stored_if_storing_is_switched_off(make_gateway):
    gateway = make_gateway(VESTAL_MLX__KEEP_ANSWERS_S="0").start().until_ok()
    answer = ask(gateway, "tokens=1").json()
    assert answer["store"] is False
    assert gateway.http.get(f"/v1/responses/{answer['id']}").status_code == 404
    refused = ask(gateway, "tokens=1", background=True)
    assert (refused.status_code, "keep_answers_s" in refused.text) == (400, True)


def test_response_input_may_refer_to_a_stored_item_and_an_unknown_item_is_a_404(gateway):
    first = ask(gateway, "tokens=1").json()
    reference = {"type": "item_reference", "id": first["output"][0]["id"]}
    answer = ask(gateway, [reference, {"role": "user", "content": "tokens=1"}])
    assert answer.status_code == 200
    unknown = ask(gateway, [{"type": "item_reference", "id": "msg_unknown"}])
    assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "item_not_found")


def test_response_input_items_are_listed_in_pages(gateway):
    items = [{"role": "user", "content": f"tokens=1 {number}"} for number in range(5)]
    path = f"/v1/responses/{ask(gateway, items).json()['id']}/input_items"

    def page(**query: Any) -> dict[str, Any]:
        return gateway.http.get(path, params=query).json()

    first = page(limit=2, order="asc")
    assert (len(first["data"]), first["has_more"]) == (2, True)
    rest = page(limit=100, order="asc", after=first["last_id"])
    assert (len(rest["data"]), rest["has_more"]) == (3, False)
    assert [item["id"] for item in page()["data"]] == [
        item["id"] for item in reversed(first["data"] + rest["data"])
    ]
    for wrong in ({"limit": "x"}, {"limit": 0}, {"order": "up"}, {"after": "nix"}):
        assert gateway.http.get(path, params=wrong).status_code == 400


def test_stored_response_stream_can_be_read_again_from_any_event(gateway):
    found = stream(gateway, "again tokens=5")
    path = f"/v1/responses/{found[-1]['response']['id']}"
    for after in (-1, 4, len(found) - 1):
        with gateway.http.stream("GET", path, params={"stream": "true", "starting_after": after}) as answer:
            assert list(events_in(answer.iter_lines())) == found[after + 1 :]
    assert gateway.http.get(path, params={"stream": "true", "starting_after": "x"}).status_code == 400


def test_background_response_can_be_streamed_and_continues_after_its_client_has_left(gateway, text_of):
    content = "behind tokens=40 step_ms=10"
    started = ask(gateway, content, background=True).json()
    assert (started["status"], started["background"]) == ("in_progress", True)
    path = f"/v1/responses/{started['id']}"
    with gateway.http.stream("GET", path, params={"stream": "true"}) as answer:
        for event in events_in(answer.iter_lines()):
            if event["type"] == "response.output_text.delta":
                break  # this client goes, and the response goes on
    ended = gateway.until(
        lambda: (found := gateway.http.get(path).json())["status"] == "completed" and found, "it ends"
    )
    assert text_in(ended) == text_of(content, 40)
    refused = ask(gateway, "x", background=True, store=False)
    assert (refused.status_code, "store: true" in refused.text) == (400, True)


def test_response_cancelled_while_it_streams_ends_its_stream_with_the_status_cancelled(gateway):
    def cancel(event: dict[str, Any]) -> None:
        if event["type"] == "response.created":
            path = f"/v1/responses/{event['response']['id']}/cancel"
            threading.Timer(0.3, lambda: answers.append(gateway.http.post(path).json())).start()

    answers: list[dict[str, Any]] = []
    found = stream(gateway, "long tokens=100000 step_ms=10", cancel)
    assert found[-1]["response"]["status"] == "cancelled"
    gateway.until(lambda: answers, "the cancellation is answered")
    assert answers[0]["status"] == "cancelled"
    gateway.until(lambda: gateway.health()["requests"]["running"] == 0, "no slot is held")


def test_response_whose_client_disconnects_is_cancelled(gateway):
    body = {"model": "chat", "input": "gone tokens=100000 step_ms=10", "stream": True}
    with gateway.http.stream("POST", "/v1/responses", json=body) as answer:
        next(answer.iter_lines())
    gateway.until(lambda: gateway.health()["requests"]["running"] == 0, "no slot is held")


def test_codex_request_is_served_and_its_unsupported_tools_are_logged(gateway):
    """The shape of Codex CLI 0.171: two developer messages, function tools, a namespace and web_search."""
    parts = [{"type": "input_text", "text": "a"}, {"type": "input_text", "text": "b"}]
    body: dict[str, Any] = {
        "instructions": None,
        "tools": [
            WEATHER | {"strict": False, "description": "x"},
            {"type": "namespace", "name": "multi_agent_v1", "description": "x", "tools": [WEATHER]},
            {"type": "web_search", "external_web_access": False},
        ],
        "tool_choice": "auto",
        "parallel_tool_calls": True,
        "reasoning": {"summary": "auto"},
        "store": False,
        "include": ["reasoning.encrypted_content"],
        "prompt_cache_key": "01a220af-53d0-7611-bdc5-38dee0bd4721",
        "client_metadata": {"a": "b"},
    }
    items = [
        {"type": "message", "id": "msg_1", "role": "developer", "content": parts[:1]},
        {"type": "message", "id": "msg_2", "role": "developer", "content": parts},
        {"type": "message", "id": "msg_3", "role": "user", "content": parts[:1]},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "tokens=2"}]},
    ]
    found = stream(gateway, items, **body)
    assert found[-1]["response"]["status"] == "completed"
    (event,) = gateway.events("request_fields_skipped")[-1:]
    assert event["tools"] == ["namespace", "web_search"]
    forced = ask(gateway, "x", tools=body["tools"], tool_choice={"type": "web_search"})
    assert (forced.status_code, "'web_search' is not served here" in forced.text) == (400, True)


@pytest.fixture(scope="module")
def tool_gateway(make_gateway: Any) -> Any:
    return make_gateway({"calls_tools": True}).start().until_ok()


def test_response_calls_a_function_and_the_next_response_uses_the_functions_output(tool_gateway, text_of):
    asked = ask(tool_gateway, "The weather?", tools=[WEATHER]).json()
    (call,) = asked["output"]
    assert (call["type"], call["name"], call["arguments"]) == ("function_call", "weather", '{"city": "Oslo"}')
    output = {"type": "function_call_output", "call_id": call["call_id"], "output": "tokens=3"}
    answer = ask(tool_gateway, [output], previous_response_id=asked["id"], tools=[WEATHER]).json()
    assert text_in(answer) == text_of("tokens=3", 3)
    lost = ask(tool_gateway, [output])
    assert (lost.status_code, "no call has the id" in lost.text) == (400, True)


def test_response_stream_of_a_function_call_contains_its_arguments(tool_gateway):
    found = stream(tool_gateway, "The weather?", tools=[WEATHER])
    assert [event["type"] for event in found[2:]] == [
        "response.output_item.added",
        "response.function_call_arguments.delta",
        "response.function_call_arguments.done",
        "response.output_item.done",
        "response.completed",
    ]


def test_input_tokens_endpoint_returns_the_token_count_of_a_responses_request(gateway):
    body = {"model": "chat", "input": "hello", "instructions": "x"}
    answer = gateway.http.post("/v1/responses/input_tokens", json=body)
    assert answer.json() == {"object": "response.input_tokens", "input_tokens": 7}


def test_response_with_an_image_for_a_text_model_is_served_and_the_skipped_image_is_logged(gateway):
    image = {"type": "input_image", "image_url": "data:image/png;base64,AAAA"}
    content = [{"type": "input_text", "text": "tokens=1"}, image]
    assert ask(gateway, [{"role": "user", "content": content}]).status_code == 200
    assert gateway.events("request_fields_skipped")[-1]["parts"] == ["input_image"]


# --- WebSocket ---


def open_socket(gateway: Any, path: str = "/v1/responses", **more: Any) -> Any:
    return connect(f"ws://127.0.0.1:{gateway.port}{path}", open_timeout=60, **more)


def create(content: Any, **more: Any) -> str:
    return json.dumps({"type": "response.create", "model": "chat", "input": content, **more})


def turn(socket: ClientConnection, message: str | bytes) -> list[dict[str, Any]]:
    socket.send(message)
    found: list[dict[str, Any]] = []
    while not found or found[-1]["type"] not in (*TERMINAL, "error"):
        found.append(json.loads(socket.recv(60)))
    return found


def test_websocket_response_when_the_engine_dies_is_complete(gateway, text_of):
    content = "socket tokens=20 die_at=7 once=1"
    with open_socket(gateway) as socket:
        found = turn(socket, create(content))
    assert text_in(found[-1]["response"]) == text_of(content, 20)
    assert [event_violations(event) for event in found] == [[]] * len(found)


def test_websocket_answers_each_invalid_message_with_an_error_and_stays_open(gateway):
    wrong = ["", "{", "[]", '{"type": "nonsense"}', '"x"', "\x00", create("x", store="yes")]
    wrong += [
        create("x", background=True),
        create("x", model="nix"),
        create(5),
        create("fail=invalid_request"),
    ]
    with open_socket(gateway) as socket:
        for message in wrong:
            (error,) = turn(socket, message)
            assert violations("WebSocketError", error) == [], message
            assert error["status"] in (400, 404)
        socket.send(b"\xff\xfe")
        assert json.loads(socket.recv(60))["error"]["code"] == "invalid_json"
        as_codex = create("tokens=1", stream=True, stream_options={"include_obfuscation": False})
        assert turn(socket, as_codex)[-1]["type"] == "response.completed"


def test_websocket_request_with_generate_false_returns_no_text_and_can_be_continued(gateway):
    with open_socket(gateway) as socket:
        warm = turn(socket, create("hello", generate=False, store=False))[-1]["response"]
        assert (warm["status"], text_in(warm)) == ("completed", "")
        going_on = create("tokens=2", previous_response_id=warm["id"], store=False)
        assert turn(socket, going_on)[-1]["type"] == "response.completed"


def test_websocket_response_whose_client_disconnects_is_cancelled(gateway):
    with open_socket(gateway) as socket:
        socket.send(create("gone tokens=100000 step_ms=10"))
        socket.recv(60)
    gateway.until(lambda: gateway.health()["requests"]["running"] == 0, "no slot is held")


def test_websocket_answers_waiting_messages_in_order_and_closes_if_there_are_too_many(gateway):
    with open_socket(gateway) as socket:
        for number in range(3):
            socket.send(create(f"tokens=1 {number}", metadata={"number": str(number)}))
        ends: list[str] = []
        while len(ends) < 3:
            event = json.loads(socket.recv(60))
            ends += [event["response"]["metadata"]["number"]] if event["type"] in TERMINAL else []
        assert ends == ["0", "1", "2"]
        socket.send(create("slow tokens=5000 step_ms=100"))
        with contextlib.suppress(ConnectionClosed):  # while it sends or while it receives
            for _ in range(30):
                socket.send(create("tokens=1"))
            while True:
                socket.recv(60)
        assert socket.close_code == 1008
    gateway.until(lambda: gateway.health()["requests"]["running"] == 0, "no slot is held")


@pytest.mark.hypothesis
def test_websocket_answers_randomly_changed_messages_without_an_internal_error_and_stays_open(gateway):
    """The same bodies as over HTTP: each message is answered, and the connection accepts the next message."""
    with open_socket(gateway) as socket:

        @settings(UNTIMED, max_examples=40)
        @given(body=mutants("/v1/responses"))
        def each(body: str) -> None:
            message = f'{{"type": "response.create", {body[1:]}'.encode("utf-8", "surrogatepass")
            last = turn(socket, message)[-1]
            assert last["type"] in TERMINAL or violations("WebSocketError", last) == []
            assert last.get("status", 0) < 500, last

        each()
        assert turn(socket, create("tokens=1"))[-1]["type"] == "response.completed"


def test_websocket_that_is_idle_does_not_delay_the_stop_of_the_gateway(make_gateway):
    gateway = make_gateway(VESTAL_MLX__DRAIN_S="600").start().until_ok()
    with open_socket(gateway) as socket:
        assert turn(socket, create("tokens=1"))[-1]["type"] == "response.completed"
        began = time.monotonic()
        assert gateway.stop() == 0
        with pytest.raises(ConnectionClosed):
            socket.recv(60)
    assert time.monotonic() - began < 10


@pytest.mark.parametrize("path", ["/v1/responses", "/v1/chat/completions"])
def test_websocket_from_a_foreign_web_page_is_refused(gateway, path):
    """A browser sends no preflight for a WebSocket: only the Origin shows a foreign page."""
    with pytest.raises(InvalidStatus) as refused:
        open_socket(gateway, path, origin="https://evil.example").__enter__()
    assert refused.value.response.status_code == 403
    if path == "/v1/responses":
        assert json.loads(refused.value.response.body)["error"]["code"] == "forbidden"
        with open_socket(gateway, origin="http://localhost:3000") as socket:
            assert turn(socket, create("tokens=1"))[-1]["type"] == "response.completed"


def test_websocket_with_a_foreign_host_header_is_refused(gateway):
    with pytest.raises(InvalidStatus) as refused:
        open_socket(gateway, additional_headers={"Host": "evil.example"})
    assert refused.value.response.status_code in (400, 403)


def test_eight_simultaneous_websockets_and_streams_are_all_served(gateway, text_of):
    def one(number: int) -> str:
        content = f"many {number} tokens=10"
        if number % 2:
            return text_in(stream(gateway, content)[-1]["response"])
        with open_socket(gateway) as socket:
            return text_in(turn(socket, create(content))[-1]["response"])

    with ThreadPoolExecutor(8) as pool:
        texts = list(pool.map(one, range(8)))
    assert texts == [text_of(f"many {number} tokens=10", 10) for number in range(8)]
