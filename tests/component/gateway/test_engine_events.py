"""GET /events: who follows it knows what died and why, at once."""

from __future__ import annotations

import threading


def test_engine_killed_is_told_to_who_waits(gateway):
    before = gateway.http.get("/events").json()
    last = max((event["seq"] for event in before["events"]), default=0)
    answers: list[dict] = []
    query = {"since": last, "instance": before["instance"], "wait_s": 20}
    waiting = threading.Thread(
        target=lambda: answers.append(gateway.http.get("/events", params=query).json())
    )
    waiting.start()
    gateway.kill_engine()
    waiting.join(20)
    told = [event for event in answers[0]["events"] if event["event"] == "child_exited"]
    assert told[0]["component"] == "mlx_engine"
    assert told[0]["cause"] == "killed by SIGKILL"
    assert min(event["seq"] for event in answers[0]["events"]) > last


def test_numbers_of_another_gateway_count_for_nothing(gateway):
    told = gateway.http.get("/events", params={"since": 10**6, "instance": "another"}).json()
    assert told["events"][0]["component"] == "mlx_engine"


def test_nonsense_in_the_query_is_a_400(gateway):
    for query in ({"since": "x"}, {"since": -1}, {"wait_s": "nan"}, {"wait_s": "inf"}):
        assert gateway.http.get("/events", params=query).status_code == 400
