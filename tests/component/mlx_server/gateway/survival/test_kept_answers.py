"""Answers that outlive their client and their gateway: streams that are read again, keys, and a kill -9."""

from __future__ import annotations

import contextlib
import os
import signal
import stat
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.services.streams import (
    ROUTES,
    Stream,
    frames_of,
    messages,
    plain,
    same_frames,
    text_of_frames,
    without_figures,
)


def _again(gateway: Any, answer_id: str, first: int = 0) -> httpx.Response:
    return gateway.http.get(f"/v1/streams/{answer_id}", params={"from": first})


@pytest.mark.parametrize("path", ROUTES)
def test_finished_stream_can_be_read_again_from_any_frame(gateway, path):
    body = ROUTES[path]("again tokens=12", stream=True)
    with gateway.http.stream("POST", path, json=body) as answer:
        content = answer.read()
    frames, answer_id = frames_of(content), answer.headers["x-request-id"]
    for first in (0, 1, len(frames) // 2, len(frames) - 1, len(frames)):
        again = _again(gateway, answer_id, first)
        assert again.headers["content-type"] == answer.headers["content-type"]
        assert again.headers["x-request-id"] == answer_id
        assert same_frames(frames_of(again.content), frames[first:])


@pytest.mark.parametrize("path", ROUTES)
def test_finished_answer_without_streaming_can_be_read_again_unchanged(gateway, path):
    answer = gateway.http.post(path, json=ROUTES[path]("whole tokens=5", stream=False))
    again = _again(gateway, answer.headers["x-request-id"])
    assert (again.status_code, plain(again.content)) == (200, plain(answer.content))


@pytest.mark.parametrize("path", ROUTES)
def test_stream_generation_pauses_while_the_client_is_away_and_the_client_gets_the_rest_on_its_return(
    gateway, path
):
    """While the client is away, its request has no slot, so nothing is generated that nobody reads."""
    body = ROUTES[path](f"leaves {path} tokens=30 step_ms=20", stream=True)
    with gateway.http.stream("POST", path, json=body) as answer:
        whole = frames_of(answer.read())
    stream = Stream(gateway.http, path, body).until(8)
    stream.leave()
    gateway.until(lambda: gateway.health()["requests"]["running"] == 0, "its slot is free")
    seen = stream.frames
    rest = frames_of(_again(gateway, stream.id, len(seen)).content)
    assert text_of_frames(seen + rest) == text_of_frames(whole)


@pytest.fixture(scope="module")
def mortal(make_gateway):
    """A gateway that the tests kill."""
    return make_gateway(VESTAL_MLX__MAX_RUNNING="16").start().until_ok()


@contextlib.contextmanager
def _reborn(gateway: Any) -> Iterator[None]:
    """Kill the gateway, and start another one in its place after the block."""
    os.kill(gateway.process.pid, signal.SIGKILL)
    gateway.process.wait()
    yield
    gateway.start()
    gateway.until(gateway.health, "the next gateway answers")


def test_stream_of_a_killed_gateway_continues_in_the_next_one_in_every_api_dialect(mortal):
    """Kill -9 of the gateway used to break off every stream; the requests were lost."""
    bodies = {
        path: make(f"goes on {path} tokens=40 hold_at=20", stream=True) for path, make in ROUTES.items()
    }
    with_two = messages("two answers tokens=40 hold_at=20", stream=True, n=2)
    taken_up_before = len(mortal.events("answers_taken_up"))
    with mortal.held():
        streams = {path: Stream(mortal.http, path, body) for path, body in bodies.items()}
        streams["two"] = Stream(mortal.http, "/v1/chat/completions", with_two)
        for stream in streams.values():
            stream.until(7)
        with _reborn(mortal):
            for stream in streams.values():
                stream.join()
                assert stream.is_cut
    for name, stream in streams.items():
        seen = stream.frames
        again = _again(mortal, stream.id, len(seen))
        assert again.status_code == 200
        frames = seen + frames_of(again.content)
        assert same_frames(frames_of(_again(mortal, stream.id).content), frames), name
    for path, body in bodies.items():
        with mortal.http.stream("POST", path, json=body) as answer:
            whole = frames_of(answer.read())
        stream = streams[path]
        assert text_of_frames(frames_of(_again(mortal, stream.id).content)) == text_of_frames(whole), path
    (event,) = mortal.events("answers_taken_up")[taken_up_before:]
    assert event["count"] == len(streams)


def test_next_gateway_finishes_the_answer_of_a_killed_gateway_although_no_client_asks_for_it(mortal):
    stream = Stream(mortal.http, "/api/chat", messages("alone tokens=30 step_ms=30", stream=True)).until(5)
    with _reborn(mortal):
        stream.join()
    mortal.until(lambda: mortal.health()["requests"]["running"] == 0, "it is finished")
    mortal.until(lambda: _ended(mortal, stream.id), "its end is written down")


def test_stored_answers_are_readable_by_their_owner_only_and_contain_no_api_key(gateway):
    headers = {
        "authorization": "Bearer very-secret",
        "x-api-key": "very-secret",
        "idempotency-key": "very-secret",
    }
    body = messages("private tokens=2", stream=False)
    answer = gateway.http.post("/api/chat", json=body, headers=headers)
    folder = gateway.home / "answers"
    gateway.until(lambda: _ended(gateway, answer.headers["x-request-id"]), "it is written down")
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    for file in folder.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert b"very-secret" not in file.read_bytes()


def _ended(gateway: Any, answer_id: str) -> bool:
    return bool(list((gateway.home / "answers").glob(f"*.{answer_id}.*.ended")))


# --- Idempotency-Key ---


def test_second_request_with_the_same_idempotency_key_joins_the_running_answer(gateway):
    body, key = messages("joined tokens=30 step_ms=20", stream=True), {"idempotency-key": "joined"}
    first = Stream(gateway.http, "/v1/chat/completions", body, **key).until(5)
    second = Stream(gateway.http, "/v1/chat/completions", body, **key)
    first.join()
    second.join()
    assert second.id == first.id
    assert second.content == first.content


def test_four_simultaneous_requests_with_one_idempotency_key_share_one_answer(gateway):
    body, key = messages("at once tokens=10 step_ms=20", stream=True), {"idempotency-key": "at once"}
    streams = [Stream(gateway.http, "/v1/chat/completions", body, **key) for _ in range(4)]
    for stream in streams:
        stream.join()
    assert len({stream.id for stream in streams}) == 1
    assert len({stream.content for stream in streams}) == 1


def test_repeated_request_with_the_same_idempotency_key_gets_the_finished_answer(gateway):
    body, key = messages("finished tokens=5", temperature=1.0), {"idempotency-key": "finished"}
    first = gateway.http.post("/v1/chat/completions", json=body, headers=key)
    again = gateway.http.post("/v1/chat/completions", json=body, headers=key)
    assert again.json() == first.json()
    other = gateway.http.post("/v1/chat/completions", json=body, headers={"idempotency-key": "other"})
    assert other.json()["id"] != first.json()["id"]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", messages("another tokens=5")),
        ("/v1/messages", messages("key tokens=5")),
    ],
)
def test_idempotency_key_reused_for_another_request_is_refused(gateway, path, body):
    key = {"idempotency-key": "reused"}
    gateway.http.post("/v1/chat/completions", json=messages("key tokens=5"), headers=key)
    refused = gateway.http.post(path, json=body, headers=key)
    assert refused.status_code == 409
    assert "Idempotency-Key" in refused.json()["error"]["message"]


def test_idempotency_key_of_a_failed_request_can_be_used_again(gateway):
    key = {"idempotency-key": "failed"}
    failing = gateway.http.post(
        "/api/chat", json=messages("x fail=internal_error", stream=False), headers=key
    )
    assert failing.status_code == 500
    assert (
        gateway.http.post("/api/chat", json=messages("tokens=3", stream=False), headers=key).status_code
        == 200
    )


def test_idempotency_key_that_is_too_long_is_refused(gateway):
    refused = gateway.http.post("/api/chat", json=messages("x"), headers={"idempotency-key": "x" * 256})
    assert refused.status_code == 400
    assert "255" in refused.json()["error"]


def test_retry_with_an_idempotency_key_gets_the_answer_that_the_killed_gateway_began(mortal):
    """OpenAI's and Anthropic's clients repeat a request with its idempotency key in the same way."""
    body, key = messages("retried tokens=40 step_ms=30"), {"idempotency-key": "retried"}
    found: list[httpx.Response] = []

    def send_until_answered() -> None:
        while not found:
            with contextlib.suppress(httpx.HTTPError):
                found.append(mortal.http.post("/v1/chat/completions", json=body, headers=key))
            time.sleep(0.05)

    thread = threading.Thread(target=send_until_answered)
    thread.start()
    mortal.until(lambda: list((mortal.home / "answers").glob("*.open")), "it is accepted")
    time.sleep(0.3)
    with _reborn(mortal):
        pass
    thread.join(60)
    assert found[0].status_code == 200
    assert found[0].json()["usage"]["completion_tokens"] == 40
    assert len(list((mortal.home / "answers").glob(f"*.{found[0].headers['x-request-id']}.*"))) == 1


# --- refusals ---


def test_reading_a_stream_with_an_unknown_id_is_a_404_and_with_an_invalid_frame_number_a_400(gateway):
    assert _again(gateway, "nothing").status_code == 404
    assert _again(gateway, "../../token").status_code == 404
    for wrong in ("-1", "x", "1.5"):
        refused = gateway.http.get("/v1/streams/nothing", params={"from": wrong})
        assert refused.status_code == 400
        assert "frames" in refused.json()["error"]["message"]


def test_answer_that_failed_cannot_be_read_again(gateway):
    failing = gateway.http.post("/api/chat", json=messages("x fail=internal_error", stream=False))
    assert _again(gateway, failing.headers["x-request-id"]).status_code == 410


def test_answers_are_not_written_to_disk_if_storing_is_switched_off(make_gateway):
    gateway = make_gateway(VESTAL_MLX__KEEP_ANSWERS_S="0").start().until_ok()
    body = messages("not kept tokens=20 hold_at=10", stream=True)
    with gateway.held():
        stream = Stream(gateway.http, "/api/chat", body).until(3)
        with gateway.http.stream("GET", f"/v1/streams/{stream.id}") as running:  # while it runs
            gateway.go_on()
            content = running.read()
    stream.join()
    assert same_frames(frames_of(content), stream.frames)
    assert _again(gateway, stream.id).status_code in (404, 410)
    assert not list((gateway.home / "answers").glob("*.*"))


# --- the Responses API ---


def test_stored_responses_and_their_conversation_survive_a_gateway_kill(mortal):
    first = mortal.http.post("/v1/responses", json={"model": "chat", "input": "first tokens=4"}).json()
    second = {"model": "chat", "input": "second tokens=4", "previous_response_id": first["id"]}
    second = mortal.http.post("/v1/responses", json=second).json()
    background = {"model": "chat", "input": "background tokens=60 step_ms=30", "background": True}
    background = mortal.http.post("/v1/responses", json=background).json()
    with _reborn(mortal):
        pass
    third = {"model": "chat", "input": "third tokens=4", "previous_response_id": second["id"]}
    assert mortal.http.post("/v1/responses", json=third).status_code == 200
    assert without_figures(mortal.http.get(f"/v1/responses/{first['id']}").json()) == without_figures(first)
    items = mortal.http.get(f"/v1/responses/{second['id']}/input_items").json()["data"]
    assert len(items) == 3

    query = {"stream": "true", "starting_after": 3}
    events = mortal.http.get(f"/v1/responses/{background['id']}", params=query)
    numbers = [plain(frame)[1]["sequence_number"] for frame in frames_of(events.content)[:-1]]
    assert numbers == list(range(4, 4 + len(numbers)))

    def finished() -> Any:
        response = mortal.http.get(f"/v1/responses/{background['id']}").json()
        return response if response["status"] == "completed" else None

    assert mortal.until(finished, "the background response is finished")["usage"]["output_tokens"] == 60
