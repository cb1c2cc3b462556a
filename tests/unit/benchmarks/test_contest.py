from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest

from benchmarks.client.reading import Answer
from benchmarks.figures import Better, Figure
from benchmarks.serving import streaming
from benchmarks.serving.contest import Contest
from benchmarks.serving.pace import split
from benchmarks.serving.servers import one_sentence
from benchmarks.serving.streaming import read_line

ROW = "serving/tokens_per_s/1"
UNITS: dict[str, tuple[str, Better]] = {ROW: ("tok/s", "higher")}


@dataclass
class FakeServer:
    """A server whose process can die, and that comes back unless it `stays_dead`."""

    name: str
    stays_dead: bool = False
    is_alive: bool = True
    url: str = "http://127.0.0.1:9"
    model: str = "bench"
    pid: int = 1
    restarts: list[bool] = field(default_factory=list)

    def last_words(self) -> str:
        return f"{self.name} ended with -11. Its log ends:\n  libc++abi: terminating"

    def kill(self) -> None:
        self.is_alive = False

    def until_restarted(self) -> None:
        self.restarts.append(not self.stays_dead)
        if self.stays_dead:
            raise TimeoutError("no module named mlx")
        self.is_alive = True


def speed(server: FakeServer) -> dict[str, float]:
    return {ROW: 10.0}


def dying(server: FakeServer) -> dict[str, float]:
    if server.name == "peer":
        server.kill()
        raise ConnectionResetError("Connection reset by peer")
    return speed(server)


def contest(*servers: FakeServer) -> tuple[Contest, list[Figure]]:
    logged: list[Figure] = []
    return Contest(logged.append, servers), logged


def test_compared_servers_take_turns_and_each_round_begins_with_a_different_server():
    it, logged = contest(FakeServer("vestal"), FakeServer("peer"))
    for number in (1, 2):
        it.turn(number, UNITS, speed)  # type: ignore[arg-type]
    assert [(figure.round, figure.subject) for figure in logged] == [
        (1, "vestal"), (1, "peer"), (2, "peer"), (2, "vestal"),
    ]  # fmt: skip


def test_compared_server_that_dies_is_logged_with_its_last_log_line_and_restarted(
    capsys: pytest.CaptureFixture[str],
):
    peer = FakeServer("peer")
    it, logged = contest(peer, FakeServer("vestal"))
    it.turn(1, UNITS, dying)  # type: ignore[arg-type]
    assert logged[0].failed == "It died. peer ended with -11. Its log ends: libc++abi: terminating"
    assert logged[1].value == 10.0
    assert "libc++abi: terminating" in capsys.readouterr().err
    it.turn(2, UNITS, speed)  # type: ignore[arg-type]
    assert peer.restarts == [True] and logged[-1].value == 10.0


def test_compared_server_whose_restart_fails_is_logged_as_failed_in_further_rounds():
    peer = FakeServer("peer", stays_dead=True)
    it, logged = contest(peer)
    it.turn(1, UNITS, dying)  # type: ignore[arg-type]
    it.turn(2, UNITS, speed)  # type: ignore[arg-type]
    assert len(peer.restarts) == 1
    assert logged[1].failed == "It died, and did not start again: no module named mlx"


def test_failed_request_to_a_running_compared_server_is_logged_without_a_restart():
    peer = FakeServer("peer")
    it, logged = contest(peer)

    def refuse(server: object) -> dict[str, float]:
        raise RuntimeError("500: the context is full")

    it.turn(1, UNITS, refuse)
    assert logged[0].failed == "500: the context is full" and not peer.restarts


def test_benchmark_round_returns_the_values_of_the_servers_that_did_not_fail():
    it, _ = contest(FakeServer("peer", stays_dead=True), FakeServer("vestal"))
    assert it.turn(1, UNITS, dying) == {"vestal": {ROW: 10.0}}  # type: ignore[arg-type]


def test_quoted_log_of_a_dead_server_is_shortened_but_keeps_its_beginning_and_end():
    shown = one_sentence("begin " + "x " * 1000 + "end")
    assert shown.startswith("begin") and shown.endswith("end") and len(shown) < 450


def test_token_gaps_that_overlap_the_prefill_of_another_prompt_are_counted_separately():
    alone, during_prefill = split([0, 1, 2, 5, 9, 10], arrived_at=3, first_at=8)
    assert alone == [1, 1] and during_prefill == [3, 4]


def test_stream_silent_during_the_prefill_of_another_prompt_has_one_gap_until_the_prefill_ends():
    assert split([0, 1], arrived_at=2, first_at=8) == ([1], [7])


# --- what peers stream ---


def read(*lines: bytes) -> Answer:
    answer = Answer()
    for at, line in enumerate(lines):
        read_line(answer, line, at)
    return answer


def test_benchmark_client_takes_the_finish_reason_from_the_only_chunk_that_has_one():
    """rapid-mlx 0.10 and fusion-mlx leave `finish_reason` out of all parts but the last."""
    answer = read(
        b'data: {"id": "1", "choices": [{"index": 0, "delta": {"content": "a"}}]}\n',
        b": keep-alive\n",
        b'data: {"choices": [{"delta": {"content": "b"}, "finish_reason": "length"}]}\n',
        b'data: {"choices": [], "usage": {"completion_tokens": 2}}\n',
        b"data: [DONE]\n",
    )
    assert (answer.text, answer.tokens, answer.finished, answer.reason) == ("ab", 2, True, "length")
    assert answer.pieces_at == [0, 2] and not answer.fault


def test_benchmark_client_treats_a_stream_that_breaks_off_as_unfinished():
    """llama-cpp-python ends the connection of a killed server's stream without any message."""
    assert not read(b'data: {"choices": [{"delta": {"content": "a"}, "finish_reason": null}]}\n').finished


def test_benchmark_client_treats_a_stream_with_done_but_no_finish_reason_as_finished():
    assert read(b'data: {"choices": [{"delta": {"content": "a"}}]}\n', b"data: [DONE]\n").finished


def test_benchmark_client_reports_an_error_event_within_a_stream_as_a_fault():
    assert "no memory" in read(b'data: {"error": {"message": "no memory"}}\n').fault


def test_benchmark_client_counts_the_tokens_of_the_text_if_an_answer_has_no_usage(
    monkeypatch: pytest.MonkeyPatch,
):
    """llama-cpp-python streams no `usage`."""

    class Words:
        def encode(self, text: str, add_special_tokens: bool) -> SimpleNamespace:
            return SimpleNamespace(ids=text.split())

    monkeypatch.setattr(streaming, "_tokenizer", Words)
    answer = read(b'data: {"choices": [{"delta": {"content": "three words here"}}]}\n')
    assert streaming.tokens_of(answer) == 3
