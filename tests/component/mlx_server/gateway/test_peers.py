"""Two gateways on one machine: what one cannot serve is finished by the other, under the same id."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import msgspec
import pytest

from mlx_server.gateway.peers.mirrored import MirrorBatch
from tests.services.streams import ROUTES, Stream, frames_of, messages, same_frames, text_of_frames

KEY = "a-key-of-sixteen-or-more"
AUTHORIZATION = {"Authorization": f"Bearer {KEY}"}
PATIENT = {"PEERS_ANSWER_WITHIN_S": "20"}
"""For gateways whose peers are gateways too, which a busy machine may let wait."""
Make = Callable[..., Any]


@pytest.fixture(scope="module")
def peer(make_gateway: Make) -> Any:
    """The gateway that finishes what the others cannot serve. It knows of none of them, and holds nothing."""
    env = {"VESTAL_MLX__PEER_KEY": KEY, "VESTAL_MLX__MAX_RUNNING": "16"}
    gateway = make_gateway(**env | PATIENT).start().until_ok()
    gateway.go_on()
    return gateway


@pytest.fixture
def make_origin(make_gateway: Make, peer: Any) -> Make:
    """A function that starts a gateway with `peer` as its peer, or with others at the URLs `peers`."""

    def make(engine: dict[str, Any] | None = None, peers: str = "", **env: str) -> Any:
        settings = {
            "VESTAL_MLX__PEERS": peers or peer.url,
            "VESTAL_MLX__PEER_KEY": KEY,
            "VESTAL_MLX__MAX_RUNNING": "16",
        }
        origin = make_gateway(engine, **settings | PATIENT | env).start()
        if not peers:
            origin.until(lambda: origin.events("peer_found"), "it knows its peer")
        return origin

    return make


@pytest.fixture(scope="module")
def refusing(make_gateway: Make, peer: Any) -> Any:
    """A gateway on whose machine no model has room."""
    env = {"VESTAL_MLX__PEERS": peer.url, "VESTAL_MLX__PEER_KEY": KEY}
    gateway = make_gateway({"refuses": "insufficient_memory"}, **env | PATIENT).start().until_ok()
    gateway.until(lambda: gateway.events("peer_found"), "it knows its peer")
    return gateway


def started(gateway: Any, prompt: str, frames: int) -> list[Stream]:
    """Return a stream in each dialect, of which so many frames have arrived."""
    streams = [Stream(gateway.http, path, make(prompt, stream=True)) for path, make in ROUTES.items()]
    return [stream.until(frames) for stream in streams]


def check_whole(streams: list[Stream], text: str, peer: Any) -> None:
    """Check that each stream has the whole text, and the frames that the peer has."""
    for path, stream in zip(ROUTES, streams, strict=True):
        stream.join()
        assert not stream.is_cut, path
        assert text_of_frames(stream.frames) == text, path
        kept = frames_of(peer.http.get(f"/v1/streams/{stream.id}").content)
        assert same_frames(stream.frames, kept), path


def test_streams_of_a_gateway_whose_circuit_breaker_opens_are_finished_by_its_peer(
    make_origin, peer, text_of
):
    origin = make_origin(VESTAL_SUPERVISION__MAX_RESTARTS="2").until_ok()
    prompt = "broken tokens=100 hold_at=20"
    streams = started(origin, prompt, 5)
    (origin.home / "fake_engine.json").write_text(json.dumps({"exit_code": 3}))
    origin.kill_engine()
    check_whole(streams, text_of(prompt, 100), peer)
    assert len(origin.events("request_passed_on")) == len(ROUTES)
    new = origin.http.post("/api/chat", json=messages("new tokens=3", stream=False))
    assert (new.status_code, new.json()["eval_count"]) == (200, 3)


@pytest.mark.parametrize("streams", [True, False])
@pytest.mark.parametrize("path", ROUTES)
def test_request_that_a_gateway_has_no_memory_for_is_served_by_its_peer(refusing, path, streams, text_of):
    prompt = f"no room {streams} tokens=6"
    answer = refusing.http.post(path, json=ROUTES[path](prompt, stream=streams))
    assert answer.status_code == 200, answer.text
    if streams:
        assert text_of_frames(frames_of(answer.content)) == text_of(prompt, 6)
    else:
        assert all(f"-{index} " in answer.text for index in range(6))
    assert answer.headers["x-request-id"]


def test_invalid_request_is_refused_and_not_passed_on_to_the_peer(refusing):
    before = len(refusing.events("request_passed_on"))
    for body in (ROUTES["/v1/completions"]("x", stop=7), {"model": "chat"}, messages("x", max_tokens="many")):
        assert refusing.http.post("/v1/chat/completions", json=body).status_code == 400
    missing = refusing.http.post("/v1/chat/completions", json={**messages("x"), "model": "nowhere"})
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "model_not_found")
    assert len(refusing.events("request_passed_on")) == before


def test_streams_of_a_gateway_that_gets_sigterm_are_finished_by_its_peer(make_origin, peer, text_of):
    origin = make_origin(VESTAL_MLX__DRAIN_S="600").until_ok()
    prompt = "stopped tokens=60 hold_at=20"
    streams = started(origin, prompt, 4)
    origin.process.terminate()
    check_whole(streams, text_of(prompt, 60), peer)
    assert origin.process.wait(60) == 0
    assert len(origin.events("request_passed_on")) == len(ROUTES)


def test_request_for_a_model_that_only_the_peer_has_is_served_through_the_peer(make_origin, peer, text_of):
    origin = make_origin()
    shutil.rmtree(origin.home / "found" / "chat")
    origin.until(origin.health, "it serves")
    answer = origin.http.post("/api/chat", json=messages("elsewhere tokens=4", stream=False))
    assert answer.json()["message"]["content"] == text_of("elsewhere tokens=4", 4)
    background = {"model": "chat", "input": "kept there tokens=4", "background": True}
    made = origin.http.post("/v1/responses", json=background).json()

    def completed() -> Any:
        found = origin.http.get(f"/v1/responses/{made['id']}").json()
        return found if found["status"] == "completed" else None

    found = origin.until(completed, "the response is complete")
    assert found["output"][0]["content"][0]["text"] == text_of("kept there tokens=4", 4)


def test_stream_served_by_a_peer_can_be_resumed_or_joined_by_idempotency_key_at_its_first_gateway(
    refusing, peer, text_of
):
    prompt = "left tokens=60 step_ms=40"
    key = {"Idempotency-Key": "one"}
    stream = Stream(refusing.http, "/api/chat", messages(prompt, stream=True), **key).until(5)
    stream.leave()
    rest = refusing.http.get(f"/v1/streams/{stream.id}", params={"from": len(stream.frames)})
    assert text_of_frames(stream.frames + frames_of(rest.content)) == text_of(prompt, 60)
    again = refusing.http.post("/api/chat", json=messages(prompt, stream=True), headers=key)
    assert again.headers["x-request-id"] == stream.id
    assert text_of_frames(frames_of(again.content)) == text_of(prompt, 60)
    at_peer = peer.http.post("/api/chat", json=messages(prompt, stream=True), headers=key)
    assert at_peer.headers["x-request-id"] == stream.id


def test_request_forwarded_to_a_peer_is_listed_and_can_be_cancelled_at_the_gateway_that_received_it(
    refusing, peer
):
    headers = {"User-Agent": "claude-cli/2.1.197 (external, cli)"}
    body = messages("far away tokens=5000 step_ms=10", stream=True)
    stream = Stream(refusing.http, "/v1/messages", body, **headers).until(5)

    def ids_at(gateway: Any) -> list[str]:
        return [each["id"] for each in gateway.http.get("/requests").json()["requests"]]

    refusing.until(lambda: ids_at(refusing) == [stream.id], "earlier requests are not listed any more")
    (entry,) = refusing.http.get("/requests").json()["requests"]
    assert (entry["id"], entry["client"], entry["dialect"]) == (stream.id, "Claude Code 2.1", "anthropic")
    assert (entry["model"], entry["phase"], entry["machine"]) == ("chat:latest", "running", peer.url)
    assert (entry["tokens"], entry["cancelable"]) == (None, True)
    peer.until(lambda: ids_at(peer) == [stream.id], "earlier requests are not listed any more")
    assert refusing.http.delete(f"/requests/{stream.id}").json()["state"] == "cancelled"
    stream.join()
    assert b"request_cancelled" in stream.frames[-1]
    refusing.until(lambda: not ids_at(refusing), "it is not listed any more")
    assert ids_at(peer) == []
    assert refusing.http.get(f"/v1/streams/{stream.id}").status_code in (404, 410)
    assert refusing.http.delete(f"/requests/{stream.id}").status_code == 404
    assert peer.http.delete(f"/v1/streams/{stream.id}").status_code == 401, (
        "clients cancel by DELETE /requests"
    )


def conversation(turns: int, last: str) -> dict[str, Any]:
    """Return a request with so many earlier messages of 400 bytes, which no other conversation has."""
    roles = ["user", "assistant"]
    earlier = [{"role": roles[turn % 2], "content": f"{last} {turn} " + "x" * 400} for turn in range(turns)]
    said = [*earlier, {"role": "user", "content": f"{last} tokens=3"}]
    return {"model": "chat", "messages": said, "stream": False}


def test_new_request_goes_to_a_free_peer_and_the_next_turn_to_the_same_peer_again(make_origin, peer):
    origin = make_origin(VESTAL_MLX__MAX_RUNNING="1").until_ok()
    assert origin.http.post("/api/chat", json=conversation(0, "first")).status_code == 200
    assert not origin.events("request_placed")
    busy = Stream(origin.http, "/api/chat", messages("busy tokens=5000 step_ms=20", stream=True)).until(2)
    moved = conversation(20, "moved")
    assert origin.http.post("/api/chat", json=moved).json()["eval_count"] == 3
    assert len(origin.events("request_placed")) == 1
    busy.leave()
    origin.until(lambda: origin.health()["requests"]["running"] == 0, "it is free again")
    for _ in range(2):
        assert origin.http.post("/api/chat", json=conversation(20, "stays")).status_code == 200
    assert len(origin.events("request_placed")) == 1
    more = [
        *moved["messages"],
        {"role": "assistant", "content": "t"},
        {"role": "user", "content": "tokens=2"},
    ]
    assert origin.http.post("/api/chat", json={**moved, "messages": more}).json()["eval_count"] == 2
    assert len(origin.events("request_placed")) == 2


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({}, 401, "unauthorized"),
        ({"Authorization": "Bearer another-key-of-sixteen"}, 401, "unauthorized"),
        ({"Authorization": f"Basic {KEY}"}, 401, "unauthorized"),
        (AUTHORIZATION, 400, "invalid_request"),
    ],
)
def test_request_to_take_over_a_stream_is_refused_without_the_peer_key_or_with_invalid_records(
    peer, headers, status, code
):
    answer = peer.http.put("/v1/streams/some-id", content=b"no records", headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)


def test_gateway_without_a_peer_key_refuses_streams_from_peers_and_reports_its_peers_as_unused(
    make_gateway, peer
):
    gateway = make_gateway(VESTAL_MLX__PEERS=peer.url).start().until_ok()
    assert "mlx.peer_key" in gateway.events("peers_not_used")[0]["cause"]
    answer = gateway.http.put("/v1/streams/x", content=b"", headers=AUTHORIZATION)
    assert (answer.status_code, "mlx.peer_key" in answer.text) == (403, True)


def test_request_that_neither_gateway_nor_peer_has_memory_for_gets_the_local_error(make_origin, refusing):
    """The second gateway has a peer of its own, and must not pass the request on to that peer."""
    before = len(refusing.events("request_passed_on"))
    origin = make_origin({"refuses": "insufficient_memory"}, peers=refusing.url).until_ok()
    origin.until(lambda: origin.events("peer_found"), "it knows its peer")
    for path, make in ROUTES.items():
        answer = origin.http.post(path, json=make("no room anywhere", stream=True))
        assert (answer.status_code, "insufficient_memory" in answer.text) == (507, True)
    assert len(origin.events("request_not_passed_on")) == len(ROUTES)
    assert len(refusing.events("request_passed_on")) == before


HEALTHY = b'HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\n{"status":"ok"}'
CREATED = b"HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\n{}"


def test_gateway_listed_among_its_own_peers_passes_requests_to_the_other_peer_only(
    make_gateway, peer, free_port
):
    gateway = make_gateway({"refuses": "insufficient_memory"}, VESTAL_MLX__PEER_KEY=KEY)
    gateway.env["VESTAL_MLX__PEERS"] = f"{gateway.url},{peer.url}"
    gateway.start().until_ok()
    gateway.until(lambda: gateway.events("peer_found"), "it knows the peer")
    assert gateway.http.post("/api/chat", json=messages("x")).status_code == 200
    assert {event["peer"] for event in gateway.events("request_passed_on")} == {peer.url}


class Impostor:
    """A server that is not a gateway: its replies by method and path; without one it never answers."""

    def __init__(self, **replies: bytes) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        self._replies = replies
        self._taken: list[socket.socket] = []
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listening.accept()
                self._taken.append(connection)
                threading.Thread(target=self._reply, args=(connection,)).start()

    def _reply(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection.makefile("rb") as request:
            method, path, *_ = (request.readline() + b"  ").decode("latin-1").split(" ")
            name = "health" if path == "/health" else method
            if name in self._replies:
                # All of it, since a part that comes after the shutdown would reset the connection.
                headers = http.client.parse_headers(request)
                request.read(int(headers["Content-Length"] or 0))
                connection.sendall(self._replies[name])
                connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        for each in (self._listening, *self._taken):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        for each in (self._listening, *self._taken):
            each.close()


@pytest.fixture
def make_impostor() -> Iterator[Callable[..., Impostor]]:
    made: list[Impostor] = []

    def make(**replies: bytes) -> Impostor:
        made.append(Impostor(**replies))
        return made[-1]

    yield make
    for each in made:
        each.close()


def test_request_gets_the_local_error_if_every_peer_hangs_or_sends_invalid_replies_or_is_absent(
    make_origin, make_impostor, free_port
):
    garbage = b"garbage\r\n\r\n"
    replies = [{}, {"health": garbage, "PUT": garbage}, {"health": HEALTHY, "PUT": b""}]
    urls = [make_impostor(**each).url for each in replies] + [f"http://127.0.0.1:{free_port()}"]
    own_limits = {"PEERS_ANSWER_WITHIN_S": ""}
    origin = make_origin({"refuses": "insufficient_memory"}, ",".join(urls), **own_limits).until_ok()
    answer = origin.http.post("/api/chat", json=messages("x", stream=True))
    assert (answer.status_code, answer.json()["code"]) == (507, "insufficient_memory")


def test_request_whose_peer_accepts_it_and_dies_before_the_first_byte_is_a_503(make_origin, make_impostor):
    liar = make_impostor(health=HEALTHY, PUT=CREATED, GET=b"")
    origin = make_origin({"refuses": "insufficient_memory"}, peers=liar.url).until_ok()
    origin.until(lambda: origin.events("peer_found"), "it knows its peer")
    answer = origin.http.post("/v1/messages", json=messages("x"))
    assert (answer.status_code, answer.json()["type"]) == (503, "error")
    assert answer.headers["retry-after"]


def kill(gateway: Any) -> None:
    """Kill a gateway and its engine, as a power cut does."""
    engine = gateway.engine_pid()
    gateway.process.kill()
    with contextlib.suppress(ProcessLookupError):  # it ends without its gateway, perhaps before this
        os.kill(engine, signal.SIGKILL)
    gateway.process.wait()


def test_stream_whose_peer_dies_can_be_resumed_at_its_first_gateway(make_gateway, make_origin, text_of):
    peer = make_gateway(VESTAL_MLX__PEER_KEY=KEY, **PATIENT).start().until_ok()
    origin = make_origin({"refuses": "insufficient_memory"}, peers=peer.url).until_ok()
    origin.until(lambda: origin.events("peer_found"), "it knows its peer")
    prompt = "lost tokens=120 hold_at=60"
    stream = Stream(origin.http, "/api/chat", messages(prompt, stream=True)).until(40)
    origin.go_on()
    (origin.home / "fake_engine.json").write_text("{}")
    origin.kill_engine()
    kill(peer)
    stream.join()
    assert stream.is_cut
    origin.until_ok()
    rest = httpx.get(f"{origin.url}/v1/streams/{stream.id}", params={"from": len(stream.frames)}, timeout=60)
    assert text_of_frames(stream.frames + frames_of(rest.content)) == text_of(prompt, 120)
    assert text_of_frames(frames_of(rest.content)) != text_of(prompt, 120)


def until_mirrored(origin: Any, peer: Any, streams: list[Stream]) -> None:
    """Wait until the peer has a copy of each stream's records. They must be all of the origin's streams,
    since it is asked as the origin asks it, twice a second: which of its answers it wants more of.
    """
    name = f"{socket.gethostname()} {origin.home} {origin.port}"
    asked = msgspec.msgpack.encode(MirrorBatch(name, {stream.id: 10**6 for stream in streams}))

    def copied_bytes() -> list[int]:
        reply = peer.http.post("/v1/streams/mirror", content=asked, headers=AUTHORIZATION)
        return [reply.json()["want"][stream.id] for stream in streams]

    origin.until(lambda: all(copied_bytes()), "the peer has a copy of each stream")


def test_streams_of_a_killed_gateway_are_finished_by_its_peer_and_not_computed_again(
    make_origin, peer, text_of
):
    """Gateway and engine are killed; when the gateway is back, it does not compute the answers again."""
    origin = make_origin().until_ok()
    prompt, other = "dead tokens=150 hold_at=30", "alone tokens=150 hold_at=30"
    streams = started(origin, prompt, 20)
    alone = Stream(origin.http, "/api/chat", messages(other, stream=True)).until(20)
    until_mirrored(origin, peer, [*streams, alone])
    kill(origin)
    for stream in (*streams, alone):
        stream.join()
        assert stream.is_cut
    for stream in streams:
        rest = peer.http.get(f"/v1/streams/{stream.id}", params={"from": len(stream.frames)})
        assert rest.status_code == 200, rest.text
        assert text_of_frames(stream.frames + frames_of(rest.content)) == text_of(prompt, 150)
    peer.until(lambda: peer.http.head(f"/v1/streams/{alone.id}").status_code == 200, "it is taken over", 60)
    origin.start().until_ok()
    assert not origin.events("answers_taken_up")
    for stream, text in ((alone, other), (streams[0], prompt)):
        rest = origin.http.get(f"/v1/streams/{stream.id}", params={"from": len(stream.frames)})
        assert text_of_frames(stream.frames + frames_of(rest.content)) == text_of(text, 150)


def test_idempotency_key_finds_the_answer_of_a_killed_gateway_at_its_peer(make_origin, peer, text_of):
    origin = make_origin().until_ok()
    prompt = "keyed tokens=80 hold_at=30"
    key, body = {"Idempotency-Key": "dead"}, messages(prompt, stream=True)
    stream = Stream(origin.http, "/v1/chat/completions", body, **key).until(25)
    until_mirrored(origin, peer, [stream])
    kill(origin)
    stream.join()
    again = peer.http.post("/v1/chat/completions", json=body, headers=key)
    assert again.headers["x-request-id"] == stream.id
    assert text_of_frames(frames_of(again.content)) == text_of(prompt, 80)
