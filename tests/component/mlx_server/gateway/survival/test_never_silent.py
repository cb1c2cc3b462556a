"""Behind a queue, a load or a hung engine, a stream begins in time, and a refusal is a 400."""

from __future__ import annotations

import contextlib
import json
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

LONG = "word " * 3000
Body = Callable[[str, str], dict[str, Any]]


def _messages(model: str, text: str) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": text}], "stream": True, "max_tokens": 50}


DIALECTS: dict[str, Body] = {
    "/v1/chat/completions": _messages,
    "/v1/messages": _messages,
    "/v1/completions": lambda model, text: {"model": model, "prompt": text, "stream": True, "max_tokens": 50},
    "/v1/responses": lambda model, text: {"model": model, "input": text, "stream": True},
    "/api/chat": lambda model, text: _messages(model, text) | {"truncate": False, "shift": False},
    "/api/generate": lambda model, text: {"model": model, "prompt": text, "truncate": False, "shift": False},
}
LIMIT_S = 1.0


class Timed:
    """One streamed request: its status, the seconds until its headers and first byte, and all it received."""

    def __init__(self, http: httpx.Client, path: str, body: dict[str, Any]) -> None:
        self.first_byte_s = self.headers_s = float("inf")
        self.text = ""
        began = time.monotonic()
        with http.stream("POST", path, json=body) as answer:
            self.status, self.headers = answer.status_code, answer.headers
            self.headers_s = time.monotonic() - began
            for piece in answer.iter_raw():
                self.first_byte_s = min(self.first_byte_s, time.monotonic() - began)
                self.text += piece.decode()


def _all(http: httpx.Client, bodies: dict[str, dict[str, Any]]) -> dict[str, Timed]:
    """Send all requests at the same time."""
    found: dict[str, Timed] = {}
    threads = [
        threading.Thread(target=lambda p=path, b=body: found.__setitem__(p, Timed(http, p, b)))
        for path, body in bodies.items()
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return found


@contextlib.contextmanager
def _busy(gateway, text: str) -> Iterator[None]:
    """Keep the only slot of the gateway taken."""
    body = {"model": "chat", "prompt": text, "stream": True}
    with gateway.http.stream("POST", "/api/generate", json=body):
        yield


@pytest.fixture(scope="module")
def narrow(make_gateway):
    """A gateway with one slot."""
    return make_gateway(VESTAL_MLX__MAX_RUNNING="1").start().until_ok()


def test_queued_stream_sends_its_first_byte_within_the_time_limit_in_every_api_dialect(narrow):
    bodies = {path: make("chat", "tokens=2") for path, make in DIALECTS.items()}
    with _busy(narrow, "busy tokens=24 step_ms=100"):
        found = _all(narrow.http, bodies)
    assert {path: each.status for path, each in found.items()} == dict.fromkeys(DIALECTS, 200)
    assert max(each.first_byte_s for each in found.values()) < LIMIT_S + 0.5  # two cores, shared
    assert all(each.headers["x-request-id"] for each in found.values())
    lives = {"/v1/messages": "event: ping", "/v1/completions": '"text":""'}
    assert all(sign in found[path].text for path, sign in lives.items())


def test_queued_request_that_the_engine_refuses_is_a_400_in_every_api_dialect(narrow):
    bodies = {path: make("chat", "fail=context_exceeded") for path, make in DIALECTS.items()}
    with _busy(narrow, "busy tokens=24 step_ms=100"):
        found = _all(narrow.http, bodies)
    assert {path: each.status for path, each in found.items()} == dict.fromkeys(DIALECTS, 400)
    assert all(each.headers["x-request-id"] for each in found.values())


@pytest.fixture(scope="module")
def wide(make_gateway):
    """A gateway with many slots."""
    return make_gateway().start().until_ok()


def test_failure_after_the_headers_is_sent_in_the_error_format_of_each_api_dialect(wide):
    bodies = {path: make("chat", "fail=internal_error fail_ms=1500") for path, make in DIALECTS.items()}
    found = _all(wide.http, bodies)
    assert {each.status for each in found.values()} == {200}
    for path, each in found.items():
        assert "internal_error" in each.text, path
    assert "event: error" in found["/v1/messages"].text
    assert "event: response.failed" in found["/v1/responses"].text
    assert json.loads(found["/api/chat"].text.splitlines()[-1])["error"]
    assert '"error"' in found["/v1/chat/completions"].text


def test_stream_while_the_engine_hangs_sends_its_first_byte_within_the_limit_in_every_api_dialect(wide):
    wide.kill_engine(signal.SIGSTOP)
    found = _all(wide.http, {path: make("chat", "tokens=2") for path, make in DIALECTS.items()})
    assert {each.status for each in found.values()} == {200}
    assert max(each.first_byte_s for each in found.values()) < LIMIT_S + 0.5


def test_too_long_prompt_while_the_real_engine_is_busy_is_a_400_in_every_api_dialect(small_gateway):
    name = "smollm2:135m"
    body = {"model": name, "prompt": "Tell a story."}
    with small_gateway.http.stream("POST", "/api/generate", json=body):
        found = _all(small_gateway.http, {path: make(name, LONG) for path, make in DIALECTS.items()})
    assert {path: each.status for path, each in found.items()} == dict.fromkeys(DIALECTS, 400)


def test_too_long_prompt_for_an_unloaded_model_is_refused_without_a_long_wait(small_gateway):
    name = "smollm2:135m"
    small_gateway.http.post("/api/generate", json={"model": name, "keep_alive": 0})
    small_gateway.until(lambda: name not in small_gateway.health()["models"]["loaded"], "it is unloaded")
    answer = Timed(small_gateway.http, "/v1/chat/completions", _messages(name, LONG))
    assert name not in small_gateway.health()["models"]["loaded"]
    assert "context" in answer.text
    # A machine that needs longer to count the tokens has sent the headers by then.
    assert answer.status == 400 or answer.headers_s >= LIMIT_S
    assert answer.headers_s < LIMIT_S + 1.5
