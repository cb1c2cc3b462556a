"""The tree of `vestal status`: the order of services, their sentences, and the layout for any width."""

from __future__ import annotations

from typing import Any

import pytest

from host_agent.cli.screen.event_feed import FeedEvent, parse
from host_agent.cli.screen.styled import plain
from host_agent.cli.status import tree

NOW = 1_795_900_000.0


def service(state: str = "ready", **fields: Any) -> dict[str, Any]:
    usual = {
        "process_pid": 1,
        "restart_count": 0,
        "uptime_s": 65.0,
        "detail": "",
        "circuit_breaker_state": "closed",
    }
    return {"state": state, "expected": True} | usual | fields


def status(healthy: bool = True, **services: dict[str, Any]) -> dict[str, Any]:
    return {"services": services, "host": {"warning": "", "disk": {}}, "healthy": healthy}


ALL = status(
    agent=service(),
    mlx_server=service(),
    mlx_engine=service(),
    ollama=service(),
    docker=service(),
    orchestrator=service(runs="in a container"),
    nightly=service(runs="in a container"),
)


def shown(answer: dict[str, Any], width: int = 120, age_s: float = 0.0) -> list[str]:
    return [plain(line) for line in tree.lay_out(answer, width, NOW, age_s)]


def test_status_tree_from_an_older_agent_that_sends_no_parents_has_the_default_shape():
    assert [line.split(" ●")[0].rstrip() for line in shown(ALL)[2:]] == [
        "agent",
        "├─ mlx_server",
        "│  └─ mlx_engine",
        "├─ ollama",
        "└─ docker",
        "   ├─ orchestrator",
        "   └─ nightly",
    ]


def test_status_tree_shows_an_orchestrator_without_docker_below_the_agent():
    native = ALL["services"] | {"orchestrator": service(runs="natively"), "nightly": service(runs="natively")}
    assert "└─ nightly" in [line.split(" ●")[0].rstrip() for line in shown(ALL | {"services": native})]


def test_status_tree_uses_the_parents_that_the_agent_names():
    answer = status(a=service(parent=None), b=service(parent="c"), c=service(parent="a"))
    assert [node.branch + node.name for node in tree.order(answer["services"])] == ["a", "└─ c", "   └─ b"]


@pytest.mark.parametrize("parents", [{"a": "b", "b": "a"}, {"a": "a", "b": "gone"}])
def test_status_tree_with_unknown_or_circular_parents_shows_every_service_once(parents: dict[str, str]):
    services = {name: service(parent=parent) for name, parent in parents.items()}
    assert sorted(node.name for node in tree.order(services)) == ["a", "b"]


def test_status_shows_the_agents_verdict_above_the_tree():
    assert shown(ALL | {"verdict": "All is well"})[0] == "All is well."
    assert shown(ALL)[0] == "All services are healthy."


def test_status_without_a_verdict_from_the_agent_names_the_unhealthy_services():
    answer = status(healthy=False, agent=service(), mlx_server=service("open"), ollama=service("absent"))
    assert shown(answer)[0] == "Not all is well: mlx_server is open."


def test_status_of_an_open_breaker_shows_the_last_failure_and_counts_down_to_the_next_trial():
    failing = service(
        "open",
        circuit_breaker_state="open",
        next_trial_in_s=42.0,
        detail="given up for now",
        last_failure={"ts": NOW - 300, "sentence": "It was killed by SIGKILL."},
    )
    (row, *rest) = shown(status(healthy=False, mlx_server=failing))[2:]
    assert "✗ open" in row and row.endswith("Given up for now.")
    assert [line.strip() for line in rest] == [
        "The circuit breaker is open; the next trial is in 42 s.",
        "Last failure 5 min ago: It was killed by SIGKILL.",
    ]
    later = "\n".join(shown(status(healthy=False, mlx_server=failing), age_s=40.0))
    assert "the next trial is in 2 s." in later
    assert "the next trial is now." in "\n".join(shown(status(healthy=False, mlx_server=failing), age_s=60.0))


def test_status_shows_a_last_failure_equal_to_the_detail_only_once():
    failing = service(
        "backoff", detail="killed by SIGKILL", last_failure={"ts": NOW, "sentence": "Killed by SIGKILL."}
    )
    assert "Last failure" not in "\n".join(shown(status(False, mlx_server=failing)))


def test_status_shows_the_uptime_plus_the_age_of_the_received_status():
    assert "  1 min" in shown(status(agent=service(uptime_s=65.0)))[2]
    assert "  2 min" in shown(status(agent=service(uptime_s=65.0)), age_s=60.0)[2]


@pytest.mark.parametrize("width", [1, 10, 40, 79, 80, 100, 200])
def test_status_lines_fit_a_terminal_of_any_width_and_lose_no_text(width: int):
    answer = ALL["services"] | {"docker": service(detail="w " * 60)}
    lines = shown(ALL | {"services": answer, "host": {"warning": "memory is short " * 9}}, width)
    assert all(len(line) <= max(width, 8) for line in lines)
    assert "".join("".join(lines).split()).lower().count("w") == 60


def test_status_without_services_or_host_is_shown_without_an_error():
    assert shown({"services": {}, "healthy": False}) == ["Not all services are healthy.", ""]


def test_status_feed_parser_yields_server_sent_events_and_skips_comments_and_invalid_json():
    stream = (
        b': hello\n\nevent: status\ndata: {"a":\ndata: 1}\n\nevent: x\ndata: {broken\n\n'
        b"id: 7\r\ndata: [2]\r\n\r\ndata: 3"
    )
    assert list(parse(stream.splitlines(keepends=True))) == [
        FeedEvent("status", {"a": 1}),
        FeedEvent("message", [2]),
    ]
