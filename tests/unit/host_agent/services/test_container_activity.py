"""What `docker top` says about the processes of a container."""

from __future__ import annotations

import pytest

from host_agent.services.docker.container_activity import parse_top
from vestal.supervision import ProcessActivity

TITLES = ["PID", "STAT", "TIME"]


def top(*rows: list[str]) -> dict[str, object]:
    return {"Titles": TITLES, "Processes": list(rows)}


def test_docker_top_gives_the_cpu_time_of_all_processes_and_the_state_of_the_main_process():
    found = parse_top(top(["4711", "Ssl", "00:01:02"], ["4800", "R", "1-00:00:01"]), 4711)
    assert found == ProcessActivity(cpu_s=86_463.0, suspended=False, wants_cpu=False, waits_for_disk=False)


@pytest.mark.parametrize(
    ("state", "shown"),
    [("Tsl", "suspended"), ("R+", "wants_cpu"), ("Dsl", "waits_for_disk")],
)
def test_docker_top_tells_if_the_main_process_is_suspended_or_wants_the_cpu_or_waits_for_disk(
    state: str, shown: str
):
    assert getattr(parse_top(top(["4711", state, "3:04"]), 4711), shown) is True


@pytest.mark.parametrize("answer", [{}, top(), top(["4711"]), top(["1", "S", "soon"]), {"Processes": [7]}])
def test_docker_top_in_an_unknown_format_gives_unknown_activity(answer: dict[str, object]):
    found = parse_top(answer, 4711)
    assert (found.cpu_s, found.suspended) == (None, None)
