"""The routes under /requests of a real gateway: the list, the event stream, cancelling, and a gateway's
stop.
"""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from tests.services.gateways import serving
from tests.services.streams import ROUTES

TEXT = "tokens=100000 step_ms=10"
SHOWN_ERROR = {
    "/v1/chat/completions": lambda last: last["error"]["code"],
    "/v1/completions": lambda last: last["error"]["code"],
    "/v1/messages": lambda last: last["error"]["code"],
    "/v1/responses": lambda last: last["response"]["error"]["code"],
    "/api/chat": lambda last: last["code"],
    "/api/generate": lambda last: last["code"],
}
HEADERS = {"User-Agent": "claude-cli/2.1.197 (external, cli)"}


class Asking:
    """A request whose response is read to its end in a thread of its own."""

    def __init__(self, gateway: Any, path: str, body: dict[str, Any]) -> None:
        self.content = b""
        self.status = 0
        self._gateway, self._path, self._body = gateway, path, body
        self._thread = threading.Thread(target=self._ask, daemon=True)
        self._thread.start()

    def _ask(self) -> None:
        answer = self._gateway.http.post(self._path, json=self._body, headers=HEADERS)
        self.content, self.status = answer.content, answer.status_code

    def end(self) -> list[dict[str, Any]]:
        """Wait for the end of the response, and return its JSON objects."""
        self._thread.join(60)
        assert not self._thread.is_alive()
        lines = [line.removeprefix(b"data: ") for line in self.content.splitlines()]
        return [json.loads(line) for line in lines if line.startswith(b"{")]


def requests_of(gateway: Any) -> list[dict[str, Any]]:
    return gateway.http.get("/requests").json()["requests"]


def running(gateway: Any) -> dict[str, Any]:
    """Wait until the only request has tokens, and return its entry."""

    def found() -> dict[str, Any] | None:
        entries = requests_of(gateway)
        return entries[0] if len(entries) == 1 and entries[0]["tokens"] else None

    return gateway.until(found, "a request has tokens")


@pytest.mark.parametrize("path", ROUTES)
def test_cancelled_stream_ends_with_the_error_of_its_api_and_cannot_be_read_again(gateway, path):
    asking = Asking(gateway, path, ROUTES[path](f"{TEXT} {path}", stream=True))
    entry = running(gateway)
    assert (entry["client"], entry["remote"], entry["model"]) == (
        "Claude Code 2.1",
        "127.0.0.1",
        "chat:latest",
    )
    assert (entry["phase"], entry["prompt_tokens"], entry["cancelable"]) == ("running", 7, True)
    answer = gateway.http.delete(f"/requests/{entry['id']}")
    assert answer.json() == {"id": entry["id"], "state": "cancelled"}
    code = "invalid_prompt" if path == "/v1/responses" else "request_cancelled"
    assert SHOWN_ERROR[path](asking.end()[-1]) == code
    assert requests_of(gateway) == []
    assert gateway.http.get(f"/v1/streams/{entry['id']}").status_code == 410
    gateway.until(
        lambda: entry["id"] in (gateway.home / "cancelled").read_text(), "the engine has dropped it"
    )
    again = gateway.http.delete(f"/requests/{entry['id']}")
    assert (again.status_code, again.json()["code"]) == (404, "not_found")
    assert entry["id"] in again.json()["error"]


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/api/chat", "/v1/responses"])
def test_cancelled_request_without_streaming_gets_status_499(gateway, path):
    asking = Asking(gateway, path, ROUTES[path](f"{TEXT} whole {path}", stream=False))
    gateway.http.delete(f"/requests/{running(gateway)['id']}")
    asking.end()
    assert asking.status == 499


def test_background_response_without_a_waiting_client_can_be_cancelled(gateway):
    body = {"model": "chat", "input": f"{TEXT} background", "background": True}
    response_id = gateway.http.post("/v1/responses", json=body).json()["id"]
    entry = running(gateway)
    assert response_id.endswith(entry["id"])
    assert gateway.http.delete(f"/requests/{entry['id']}").status_code == 200
    gateway.until(
        lambda: gateway.http.get(f"/v1/responses/{response_id}").json()["status"] == "failed", "it has ended"
    )
    assert requests_of(gateway) == []


def test_request_for_several_answers_is_listed_once_and_cancelled_as_a_whole(gateway):
    body = ROUTES["/v1/chat/completions"](f"{TEXT} several", n=3)
    asking = Asking(gateway, "/v1/chat/completions", body)
    gateway.http.delete(f"/requests/{running(gateway)['id']}")
    asking.end()
    assert asking.status == 499
    gateway.until(lambda: gateway.health()["requests"]["running"] == 0, "no slot is taken")


def test_request_totals_are_equal_in_the_health_and_requests_routes_and_grow_with_each_answer(gateway):
    before = gateway.health()["totals"]
    gateway.http.post("/api/chat", json=gateway.chat("totals tokens=30", stream=False))
    after = gateway.http.get("/requests").json()["totals"]
    assert after == gateway.health()["totals"]
    grown = {name: after[name] - before[name] for name in after}
    assert (grown["tokens"], grown["prompt_tokens"], grown["requests"], grown["failed"]) == (30, 7, 1, 0)
    assert grown["first_tokens"] == 1
    assert grown["first_token_s"] > 0


def test_requests_route_answers_head_requests_and_refuses_web_pages_of_other_origins(gateway):
    assert gateway.http.head("/requests").status_code == 200
    foreign = {"Origin": "https://example.com"}
    assert gateway.http.get("/requests", headers=foreign).status_code == 403
    assert gateway.http.delete("/requests/x", headers=foreign).status_code == 403
    assert gateway.http.post("/requests", json={}).status_code == 405
    document = gateway.http.get("/openapi.json").json()["paths"]
    assert {"/requests", "/requests/events", "/requests/{request_id}"} <= document.keys()
    assert "404" in document["/requests/{request_id}"]["delete"]["responses"]


class Follower:
    """A follower of GET /requests/events: the bodies of the frames it received, and when its stream ended."""

    def __init__(self, url: str) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.ended_at: float | None = None
        self._url = url
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def _follow(self) -> None:
        with httpx.stream("GET", f"{self._url}/requests/events", timeout=60) as answer:
            assert answer.headers["content-type"].startswith("text/event-stream")
            for line in answer.iter_lines():
                if line.startswith("data: "):
                    self.bodies.append(json.loads(line.removeprefix("data: ")))
        self.ended_at = time.monotonic()

    def saw(self, condition: Callable[[list[dict[str, Any]]], Any]) -> bool:
        return any(condition(body["requests"]) for body in self.bodies)


def test_event_stream_of_running_requests_shows_an_engine_crash_and_then_the_end_of_the_request(gateway):
    """The stream looks each second, so the request runs until the stream has shown what it must show."""
    follower = Follower(gateway.url)
    asking = Asking(gateway, "/api/chat", ROUTES["/api/chat"](f"followed die_at=60 once=1 {TEXT}"))
    gateway.until(lambda: follower.saw(lambda found: found and found[0]["crashes"] == 1), "it sees the crash")
    gateway.until(
        lambda: follower.saw(lambda found: found and (found[0]["tokens_per_s"] or 0) > 0), "it sees the speed"
    )
    gateway.http.delete(f"/requests/{running(gateway)['id']}")
    asking.end()
    gateway.until(lambda: follower.bodies[-1]["requests"] == [], "it sees the end")


@pytest.fixture
def gateways(make_gateway: Callable[..., Any]) -> Iterator[Any]:
    with serving(make_gateway(VESTAL_MLX__DRAIN_S="600")) as gateways:
        yield gateways


def test_requests_event_stream_delays_neither_a_handover_nor_a_stop_of_the_gateway(gateways):
    """The event stream is endless; earlier, it kept an old gateway running for 15 minutes."""
    gateway = gateways.gateway
    follower = Follower(gateway.url)
    gateway.until(lambda: follower.bodies, "the follower has a frame")
    gateways.replace()
    gateway.until(lambda: follower.ended_at, "its stream has ended")
    gateway.until_ok()
    follower = Follower(gateway.url)
    gateway.until(lambda: follower.bodies, "the follower of the next gateway has a frame")
    gateways.all[-1].send_signal(signal.SIGTERM)
    gateways.all[-1].wait(60)  # a stream that delayed the stop would do so for the 600 s of the drain
    gateway.until(lambda: follower.ended_at, "its stream has ended too")
