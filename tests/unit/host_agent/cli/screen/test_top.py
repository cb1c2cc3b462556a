"""`vestal top`: requests and memory on terminals of any width, and for a pipe."""

from __future__ import annotations

from typing import Any

import pytest

from host_agent.cli.gateway import GatewayClient
from host_agent.cli.screen.event_feed import LOST, FeedEvent, NotAStream
from host_agent.cli.screen.styled import plain
from host_agent.cli.top import top
from host_agent.cli.top.layout import lay_out, memory_lines, plain_lines
from host_agent.errors import GatewayUnreachable

REQUEST = {
    "id": "1d83ad6773987cdd09307575670878d7",
    "client": "Claude Code 2.1",
    "remote": "127.0.0.1",
    "model": "smollm2:135m",
    "phase": "running",
    "prompt_tokens": 1769,
    "tokens": 42,
    "tokens_per_s": 12.34,
    "age_s": 5.0,
    "crashes": 0,
}
WAITING = REQUEST | {
    "id": "x",
    "client": "",
    "phase": "queued",
    "prompt_tokens": None,
    "tokens": None,
    "tokens_per_s": None,
}
REQUESTS = {"requests": [REQUEST, WAITING], "counts": {"running": 1, "queued": 1}, "omitted": 0}
MEMORY = {
    "limit_bytes": 10_000_000_000,
    "in_use_bytes": 3_000_000_000,
    "weights_bytes": 2_000_000_000,
    "kv_bytes": 400_000_000,
    "prompt_cache_bytes": 0,
    "promised_bytes": 1_400_000_000,
}
HEALTH = {"engine": {"state": "busy", "pid": 7}, "memory": MEMORY}


def shown(requests: dict[str, Any], health: dict[str, Any], width: int, age_s: float = 0.0) -> list[str]:
    return [plain(line) for line in lay_out(requests, health, width, age_s)]


def test_top_table_shows_every_known_figure_and_omits_unknown_ones():
    title, running, queued = shown(REQUESTS, HEALTH, 100, age_s=3.0)[-3:]
    assert title.split() == ["id", "client", "model", "phase", "prompt", "tokens", "tok/s", "age"]
    assert running.split() == [
        "1d83ad67",
        "Claude",
        "Code",
        "2.1",
        "smollm2:135m",
        "running",
        "1,769",
        "42",
        "12.3",
        "8",
        "s",
    ]
    assert queued.split() == ["x", "127.0.0.1", "smollm2:135m", "queued", "8", "s"]


def test_top_summary_counts_requests_by_phase_and_adds_up_tokens_per_second():
    assert shown(REQUESTS, HEALTH, 100)[0] == "1 running  1 queued  12.3 tokens/s  engine busy (PID 7)"


def test_top_memory_bar_shows_each_kind_of_memory_in_proportion_to_the_limit():
    bar, legend, *_ = (plain(line) for line in memory_lines(HEALTH, 62))
    assert len(bar) == 62
    assert bar.count("█") == 12 + 3 + 4 + 6  # weights 20 %, KV 4 %, other 6 %, promised 10 %, each rounded up
    assert legend == "2.8 GiB of 9.3 GiB · weights 1.9 GiB · KV 381 MiB"


@pytest.mark.parametrize("memory", [None, {}, {"limit_bytes": None}, {"limit_bytes": 0}])
def test_top_shows_memory_as_not_known_yet_if_the_status_has_no_memory_figures(memory: dict[str, Any] | None):
    assert [plain(line) for line in memory_lines({"memory": memory}, 40)] == ["Memory: not known yet."]


def test_top_memory_bar_of_memory_above_the_limit_is_exactly_full():
    above = MEMORY | {"in_use_bytes": 30_000_000_000, "weights_bytes": 25_000_000_000}
    assert plain(memory_lines({"memory": above}, 42)[0]).count("█") == 40


def test_top_without_requests_says_that_there_are_none():
    assert shown({"requests": []}, {}, 80)[-1] == "No request is in flight."
    assert shown({}, {}, 80)[0].endswith("engine away")


@pytest.mark.parametrize("width", [40, 60, 76, 100, 200])
def test_top_lines_fit_a_terminal_of_any_width(width: int):
    assert all(len(line) <= width for line in shown(REQUESTS | {"omitted": 7}, HEALTH, width))


def test_top_on_a_narrow_terminal_shows_each_request_in_two_lines():
    assert shown(REQUESTS, HEALTH, 40)[-4:] == [
        "1d83ad67 running 42 tok 12.3/s 5 s",
        "  smollm2:135m, Claude Code 2.1",
        "x queued 0 tok 5 s",
        "  smollm2:135m, 127.0.0.1",
    ]


def test_top_output_to_a_pipe_has_full_ids_and_one_line_for_each_request():
    lines = [plain(line) for line in plain_lines(REQUESTS, HEALTH)]
    assert lines[1] == (
        "memory: 2.8 GiB of 9.3 GiB (weights 1.9 GiB, KV 381 MiB, other 572 MiB, promised 954 MiB)"
    )
    assert lines[3].startswith(str(REQUEST["id"]))
    assert len(lines) == 5


def test_top_prints_no_control_characters_of_a_client_name():
    assert "\x1b" not in "".join(shown({"requests": [REQUEST | {"client": "\x1b[2Jx"}]}, {}, 100))


class Gateway(GatewayClient):
    """Answers GET /health with a given status and body."""

    def __init__(self, status: int, body: dict[str, Any]) -> None:
        self.url = "http://127.0.0.1:11435"
        self._answer = status, body

    def _exchange(
        self, method: str, path: str, body: dict[str, Any] | None = None
    ) -> tuple[int, dict[str, Any]]:
        return self._answer


def test_top_shows_the_engine_of_a_gateway_whose_health_is_503():
    """`vestal top` said that no MLX server answers while the engine had failed: the moment to look at it."""
    gateway = Gateway(503, {"status": "failed", "engine": {"state": "open", "pid": None}})
    watched = top.WatchedGateway(gateway)
    watched.on_event(FeedEvent("requests", {"requests": []}))
    watched.on_event(top._ask_for_health(gateway))
    assert [plain(line) for line in watched.draw(100)][0].endswith("engine open")


@pytest.mark.parametrize("body", [{}, {"error": {"message": "no"}}])
def test_health_of_a_gateway_that_answers_503_without_a_status_is_an_error_with_that_number(
    body: dict[str, Any],
):
    with pytest.raises(GatewayUnreachable, match="answers with status 503: `vestal status`"):
        Gateway(503, body).health()


@pytest.mark.parametrize(
    ("status", "words"), [(404, "older than this command"), (503, "answers with status 503: `vestal status`")]
)
def test_top_says_that_the_mlx_server_is_older_only_if_the_server_has_no_stream_of_requests(
    status: int, words: str
):
    watched = top.WatchedGateway(Gateway(200, {}))
    watched.on_event(FeedEvent(LOST, NotAStream(status)))
    assert words in " ".join(plain(line) for line in watched.draw(200))
