"""GET /events: who follows it knows what died and why, at once."""

from __future__ import annotations

import threading


def test_engine_killed_is_told_to_who_waits(gateway):
    before = gateway.http.get("/events").json()
    last = max((event["seq"] for event in before["events"]), default=0)
    told: list[dict] = []

    def follow() -> None:
        since = last
        while not any(event["event"] == "child_exited" for event in told):
            query = {"since": since, "instance": before["instance"], "wait_s": 10}
            told.extend(gateway.http.get("/events", params=query, timeout=20).json()["events"])
            since = told[-1]["seq"]

    waiting = threading.Thread(target=follow, daemon=True)
    waiting.start()
    gateway.kill_engine()
    waiting.join(20)
    died = next(event for event in told if event["event"] == "child_exited")
    assert died["component"] == "mlx_engine"
    assert died["cause"] == "killed by SIGKILL"
    numbers = [event["seq"] for event in told]
    assert numbers == sorted(set(numbers)), "each once, in order"
    assert numbers[0] > last


def test_numbers_of_another_gateway_count_for_nothing(gateway):
    told = gateway.http.get("/events", params={"since": 10**6, "instance": "another"}).json()
    assert told["events"][0]["component"] == "mlx_engine"


def test_nonsense_in_the_query_is_a_400(gateway):
    for query in ({"since": "x"}, {"since": -1}, {"wait_s": "nan"}, {"wait_s": "inf"}):
        assert gateway.http.get("/events", params=query).status_code == 400
