"""GET /events: a client that waits there learns at once what died and why."""

from __future__ import annotations

import threading


def test_events_when_the_engine_is_killed_reach_a_waiting_client(gateway):
    before = gateway.http.get("/events").json()
    last = max((event["seq"] for event in before["events"]), default=0)
    received: list[dict] = []

    def follow() -> None:
        since = last
        while not any(event["event"] == "child_exited" for event in received):
            query = {"since": since, "instance": before["instance"], "wait_s": 10}
            received.extend(gateway.http.get("/events", params=query, timeout=20).json()["events"])
            since = received[-1]["seq"]

    follower = threading.Thread(target=follow, daemon=True)
    follower.start()
    gateway.kill_engine()
    follower.join(20)
    died = next(event for event in received if event["event"] == "child_exited")
    assert died["component"] == "mlx_engine"
    assert died["cause"] == "killed by SIGKILL"
    numbers = [event["seq"] for event in received]
    assert numbers == sorted(set(numbers)), "each event comes once, in order"
    assert numbers[0] > last


def test_events_since_a_number_of_another_gateway_begin_at_the_first(gateway):
    answer = gateway.http.get("/events", params={"since": 10**6, "instance": "another"}).json()
    assert answer["events"][0]["component"] == "mlx_engine"


def test_events_with_an_invalid_query_are_refused(gateway):
    for query in ({"since": "x"}, {"since": -1}, {"wait_s": "nan"}, {"wait_s": "inf"}):
        assert gateway.http.get("/events", params=query).status_code == 400
