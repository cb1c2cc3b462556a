"""The orchestrator's API refuses foreign origins, foreign host names, and bodies that are not JSON."""

from __future__ import annotations

import http.client
import json

import pytest

from tests.component.orchestrator.conftest import TOKEN, Orchestrator, call


@pytest.fixture
def one(shared: Orchestrator) -> Orchestrator:
    return shared


def code(answer: tuple[int, dict]) -> tuple[int, str]:
    return answer[0], answer[1]["error"]["code"]


def test_tasks_post_not_declared_as_json_is_415_and_creates_no_task(one: Orchestrator):
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", ""):
        answer = one.ask("/tasks", {"goal": "x"}, headers={"Content-Type": kind})
        assert code(answer) == (415, "unsupported_media_type")
    assert one.ask("/tasks")[1]["tasks"] == []
    with_charset = {"Content-Type": "Application/JSON; charset=utf-8"}
    assert one.ask("/tasks", {"goal": "x"}, headers=with_charset)[0] == 201
    assert code(one.ask("/tasks", b"", method="POST")) == (400, "invalid_json")


def test_tasks_request_from_a_foreign_origin_is_403(one: Orchestrator):
    foreign = ("http://evil.example", "null", "", "https://localhost", "http://localhost:3000", one.url + "0")
    for origin in foreign:
        assert code(one.ask("/tasks", headers={"Origin": origin})) == (403, "forbidden"), origin
        assert code(call(f"{one.url}/health", headers={"Origin": origin})) == (403, "forbidden")
    assert one.ask("/tasks", headers={"Origin": one.url})[0] == 200


def test_tasks_request_for_a_foreign_host_is_403_and_for_its_own_names_200(one: Orchestrator):
    names = ("localhost", "127.0.0.1", "[::1]", "host.docker.internal", "orchestrator", "LOCALHOST")
    for host in (*names, *(f"{name}:{one.port}" for name in names)):
        assert one.ask("/tasks", headers={"Host": host})[0] == 200, host
    foreign = (
        "evil.example",
        f"evil.example:{one.port}",
        "localhost.evil.example",
        "me@localhost",
        "x/y",
        "[",
    )
    for host in foreign:
        assert code(one.ask("/tasks", headers={"Host": host})) == (403, "forbidden"), host
    assert code(call(f"{one.url}/health", headers={"Host": "evil.example"})) == (403, "forbidden")


@pytest.mark.parametrize(("host", "status"), [("", 403), ("localhost", 404)])
def test_tasks_request_with_empty_host_or_invalid_unicode_is_refused_in_json(
    one: Orchestrator, host: str, status: int
):
    connection = http.client.HTTPConnection("127.0.0.1", one.port, timeout=10)
    connection.putrequest("GET", "/tasks/%00%ED%A0%80", skip_host=True)
    connection.putheader("Host", host)
    connection.putheader("Authorization", f"Bearer {TOKEN}")
    connection.endheaders()
    reply = connection.getresponse()
    text = reply.read().decode()
    connection.close()
    assert reply.status == status, text
    assert json.loads(text)["error"]["code"]
