"""Limits: few requests run, few wait, the next gets 503 with Retry-After; clients are served fairly."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import pytest

LONG = "tokens=100000 step_ms=5"


@pytest.fixture(scope="module")
def small(make_gateway):
    """A gateway that runs one request and lets four wait."""
    return make_gateway(VESTAL_MLX__MAX_RUNNING="1", VESTAL_MLX__MAX_QUEUED="4").start().until_ok()


def _ask(gateway, content: str, key: str = ""):
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    return gateway.http.post("/api/chat", json=gateway.chat(content, stream=False), headers=headers)


def _counts(gateway) -> tuple[int, int]:
    requests = gateway.health()["requests"]
    return requests["running"], requests["queued"]


def test_request_beyond_a_full_queue_is_refused_with_retry_after_and_queued_ones_are_served(small):
    with ThreadPoolExecutor(6) as pool:
        with small.http.stream("POST", "/api/chat", json=small.chat(LONG)) as running:
            lines = running.iter_lines()  # must stay referenced: the connection closes with it
            next(lines)
            waiting = [pool.submit(_ask, small, f"{n} tokens=2") for n in range(4)]
            small.until(lambda: _counts(small) == (1, 4), "the queue is full")
            for path, envelope in (("/api/chat", dict), ("/v1/chat/completions", lambda b: b["error"])):
                refused = small.http.post(path, json=small.chat("one more"))
                assert refused.status_code == 503
                assert envelope(refused.json())["code"] == "overloaded"
                assert int(refused.headers["retry-after"]) > 0
            vectors = small.http.post(
                "/api/embed", json={"model": "vectors", "input": "in a lane of its own"}
            )
            assert vectors.status_code == 200
        assert {answer.result().status_code for answer in waiting} == {200}


def test_client_with_one_request_is_served_before_the_queue_of_another_client(small):
    answers = {}
    body = small.chat(LONG)
    with ThreadPoolExecutor(5) as pool, small.http.stream("POST", "/api/chat", json=body) as running:
        lines = running.iter_lines()
        next(lines)
        for waiting, name in enumerate(("greedy0", "greedy1", "greedy2", "modest"), start=1):
            answers[name] = pool.submit(_ask, small, f"{name} tokens=2", name.rstrip("012"))
            small.until(lambda n=waiting: _counts(small) == (1, n), "it waits")
    # The gateway's own times: a busy machine may wake the clients' threads in any order.
    finished = {name: answer.result().json()["created_at"] for name, answer in answers.items()}
    assert sorted(finished, key=finished.__getitem__)[:2] == ["greedy0", "modest"], finished


def test_twenty_simultaneous_requests_within_the_limits_are_all_served(gateway):
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda n: _ask(gateway, f"burst {n} tokens=5"), range(20)))
    assert {answer.status_code for answer in answers} == {200}
    assert {json.loads(answer.text)["eval_count"] for answer in answers} == {5}
