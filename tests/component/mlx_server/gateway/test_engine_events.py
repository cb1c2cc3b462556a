"""GET /events: a client that waits there learns at once what died and why."""

from __future__ import annotations

import contextlib
import socket
import threading

from mlx_server.gateway.engine_events import MAX_WAITING


def test_events_when_the_engine_is_killed_reach_a_waiting_client(gateway):
    before = gateway.http.get("/events").json()
    last = max((event["seq"] for event in before["events"]), default=0)
    received: list[dict] = []

    def follow() -> None:
        since = last
        while not any(event["event"] == "child_exited" for event in received):
            query = {"since": since, "instance": before["instance"], "wait_s": 10}
            received.extend(gateway.http.get("/events", params=query).json()["events"])
            since = received[-1]["seq"] if received else last

    follower = threading.Thread(target=follow, daemon=True)
    follower.start()
    gateway.kill_engine()
    follower.join(60)
    assert not follower.is_alive()
    died = next(event for event in received if event["event"] == "child_exited")
    assert died["component"] == "mlx_engine"
    assert died["cause"] == "killed by SIGKILL"
    numbers = [event["seq"] for event in received]
    assert numbers == sorted(set(numbers)), "each event comes once, in order"
    assert numbers[0] > last


def test_events_requested_since_an_event_number_of_another_gateway_begin_at_the_first_event(gateway):
    answer = gateway.http.get("/events", params={"since": 10**6, "instance": "another"}).json()
    assert answer["events"][0]["component"] == "mlx_engine"


def test_events_with_an_invalid_query_are_refused(gateway):
    for query in ({"since": "x"}, {"since": -1}, {"wait_s": "nan"}, {"wait_s": "inf"}):
        assert gateway.http.get("/events", params=query).status_code == 400


def test_events_request_beyond_the_limit_of_waiting_clients_is_refused_with_503(gateway):
    """A waiting connection is not closed for a new one, so their number must be bounded."""
    poll = b"GET /events?since=1000000&wait_s=30 HTTP/1.1\r\nHost: localhost\r\n\r\n"
    query = {"since": 1_000_000, "wait_s": 0.1}
    with contextlib.ExitStack() as stack:

        def is_refused_beside_the_others() -> bool:
            """Open as many waiting connections as are allowed, since any event ends the waiting of all."""
            address = ("127.0.0.1", gateway.port)
            for _ in range(MAX_WAITING):
                stack.enter_context(socket.create_connection(address, timeout=30)).sendall(poll)
            answer = gateway.http.get("/events", params=query)
            return answer.status_code == 503 and answer.json()["code"] == "overloaded"

        gateway.until(is_refused_beside_the_others, f"{MAX_WAITING} wait")
        assert gateway.http.get("/events", params={"since": 1_000_000}).status_code == 200
