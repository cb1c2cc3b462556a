"""Requests survive the death of their engine; a request that kills engines runs alone and then fails."""

from __future__ import annotations

import json
import os
import signal
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest

from host_agent.cli.chat import demo
from host_agent.cli.gateway import GatewayClient
from host_agent.errors import HostAgentError
from tests.component.mlx_server.gateway.conftest import SHORTEST_PROGRESS_TIMEOUT
from tests.services.in_process import vestal


def _stream(gateway, content: str, on_piece=lambda number: None) -> str:
    text, number = "", 0
    with gateway.http.stream("POST", "/api/chat", json=gateway.chat(content)) as answer:
        for line in answer.iter_lines():
            piece = json.loads(line)
            assert "error" not in piece, piece
            text += piece["message"]["content"]
            number += 1
            on_piece(number)
    assert piece["done"] is True
    assert piece["eval_count"] == text.count(" ")
    return text


def _ask(gateway, content: str):
    return gateway.http.post("/api/chat", json=gateway.chat(content, stream=False))


def test_stream_when_the_engine_is_killed_three_times_is_complete(gateway, text_of):
    content = "kill me tokens=120 step_ms=10 hold_at=100"
    kills = {10, 40, 70}
    survived = gateway.health()["requests"]["survived_crashes"]

    def kill(number: int) -> None:
        if number in kills:
            gateway.kill_engine()
        if number == max(kills):
            gateway.go_on()

    with gateway.held():
        assert _stream(gateway, content, kill) == text_of(content, 120)
    health = gateway.health()
    assert health["requests"]["survived_crashes"] == survived + 1
    assert health["engine"]["restarts"] >= 3
    assert health["engine"]["last_crash"]["cause"] == "killed by SIGKILL"


def test_stream_after_an_engine_kill_resumes_as_soon_as_its_own_model_is_loaded(make_gateway, text_of):
    gateway = make_gateway({"ready_by_token": True}).start().until_ok()
    content = "ahead tokens=60 step_ms=10 hold_at=30"

    def kill(number: int) -> None:
        if number == 10:
            gateway.kill_engine()
            gateway.go_on()

    with gateway.held():
        assert _stream(gateway, content, kill) == text_of(content, 60)
    (resumed,) = gateway.events("request_resumed")
    ready = gateway.until(lambda: gateway.events("engine_ready")[1:], "the second engine is ready")
    assert resumed["seq"] < ready[0]["seq"]


def test_stream_that_makes_progress_between_six_engine_kills_is_complete(gateway, text_of):
    """Earlier, 2 of 100 requests failed in `make chaos` only because they ran during many crashes."""
    content = "again tokens=30 step_ms=10"

    def kill(number: int) -> None:
        if number % 4 == 0 and number <= 24:  # strikes are cancelled after 16 tokens
            gateway.kill_engine()

    assert _stream(gateway, content, kill) == text_of(content, 30)


def test_stream_is_complete_although_ten_engines_in_a_row_are_killed_while_they_resume_it(gateway, text_of):
    """Earlier, one of 24 streams was refused: its engines were killed while they replayed the answer."""
    content = "replayed tokens=30 hold_at=10 replay_ms=2000"
    with ThreadPoolExecutor(1) as pool, gateway.held():
        answer = _begun_stream(pool, gateway, content)
        _kill_engines_at_work(gateway, 11)  # the first one ends the first part of the answer
        gateway.go_on()
        assert answer.result() == text_of(content, 30)
    crashes = _finished(gateway)[-1]["crashes"]
    causes = [event["cause"] for event in gateway.events("child_exited")[-crashes:]]
    assert causes == ["killed by SIGKILL"] * 11


def test_stream_behind_an_open_breaker_completes_and_a_new_request_is_told_when_to_retry(
    make_gateway, text_of
):
    """Earlier, the breaker stayed open for as long as a request may wait, and six answers were lost."""
    gateway = make_gateway(
        VESTAL_SUPERVISION__MAX_RESTARTS="2",
        VESTAL_SUPERVISION__BREAKER_OPEN_S="8",
        VESTAL_MLX__MAX_WAIT_S="0.5",
    )
    gateway.start().until_ok()
    content = "behind a breaker tokens=30 hold_at=10"
    with ThreadPoolExecutor(1) as pool, gateway.held():
        answer = _begun_stream(pool, gateway, content)
        _kill_engines_at_work(gateway, 3)  # the first one worked for the stream, the next two did not
        gateway.until(lambda: gateway.health()["engine"]["state"] == "open", "the breaker opens")
        refused = _ask(gateway, "new")
        assert (refused.status_code, int(refused.headers["retry-after"]) in range(1, 9)) == (503, True)
        assert "is started again in" in refused.json()["error"]
        health = gateway.http.get("/health")
        assert (health.status_code, int(health.headers["retry-after"]) in range(1, 9)) == (503, True)
        gateway.go_on()
        assert answer.result() == text_of(content, 30)
    assert gateway.health()["status"] == "ok"


def _begun_stream(pool: ThreadPoolExecutor, gateway, content: str) -> Future[str]:
    """Return the text that a stream will have, once 10 tokens of it have come."""
    begun = threading.Event()
    text = pool.submit(_stream, gateway, content, lambda number: begun.set() if number == 10 else None)
    assert begun.wait(60)
    return text


def _finished(gateway) -> list[dict[str, Any]]:
    """Return the events about the ends of clients' requests. The gateway itself has models loaded again."""
    return [event for event in gateway.events("request_finished") if event["dialect"] != "gateway"]


def _kill_engines_at_work(gateway, count: int) -> None:
    """Kill the engine that works on the stream, and the next one as soon as that works, `count` in all."""
    killed = 0
    for _ in range(count):
        engine_at_work = partial(_engine_at_work, gateway, unlike=killed)
        killed = gateway.until(engine_at_work, "it replays")
        os.kill(killed, signal.SIGKILL)


def _engine_at_work(gateway, unlike: int, on: int = 1) -> int | None:
    """Return the PID of an engine with so many running requests, other than the last one."""
    health = gateway.health()
    is_at_work = health["requests"]["running"] >= on and health["engine"]["pid"] != unlike
    return health["engine"]["pid"] if is_at_work else None


def test_engine_that_exits_on_sigterm_is_not_recorded_as_a_crash(gateway):
    before, engine = gateway.health()["engine"], gateway.engine_pid()
    gateway.kill_engine(signal.SIGTERM)
    gateway.until(lambda: gateway.engine_pid() not in (None, engine), "another engine runs")
    assert gateway.health()["engine"]["last_crash"] == before["last_crash"]


def test_openai_stream_when_the_engine_is_killed_has_one_id_and_the_right_token_count(gateway, text_of):
    content = "tokens=30 die_at=12 once=1"
    body = gateway.chat(content, stream=True, stream_options={"include_usage": True})
    with gateway.http.stream("POST", "/v1/chat/completions", json=body) as answer:
        data = [line.removeprefix("data: ") for line in answer.iter_lines() if line]
    assert data[-1] == "[DONE]"
    chunks = [json.loads(line) for line in data[:-1]]
    assert len({chunk["id"] for chunk in chunks}) == 1
    assert "".join(c["choices"][0]["delta"].get("content", "") for c in chunks[:-1]) == text_of(content, 30)
    assert chunks[-1]["usage"]["completion_tokens"] == 30


def test_twelve_answers_when_the_engine_is_killed_three_times_are_all_complete(gateway, text_of):
    contents = [f"number {n} tokens=40 hold_at=20" for n in range(12)]
    with ThreadPoolExecutor(12) as pool, gateway.held():
        answers = [pool.submit(_ask, gateway, content) for content in contents]
        killed = 0
        for _ in range(3):
            killed = gateway.until(partial(_engine_at_work, gateway, unlike=killed, on=3), "some run")
            os.kill(killed, signal.SIGKILL)
        gateway.go_on()
        texts = [answer.result().json()["message"]["content"] for answer in answers]
    assert texts == [text_of(content, 40) for content in contents]


def test_request_that_kills_every_engine_fails_and_another_request_is_answered_completely(gateway, text_of):
    harmless = "harmless tokens=400 hold_at=200"
    with ThreadPoolExecutor(2) as pool, gateway.held():
        bystander = pool.submit(_ask, gateway, harmless)
        gateway.until(lambda: gateway.health()["requests"]["running"], "the bystander runs")
        restarts = gateway.health()["engine"]["restarts"]
        poison = pool.submit(_ask, gateway, "poison abort_at=0")
        gateway.until(lambda: gateway.health()["engine"]["restarts"] > restarts, "it has killed an engine")
        gateway.go_on()
        failed, answer = poison.result(), bystander.result()
    assert failed.status_code == 500
    assert failed.json()["code"] == "engine_crashed"
    assert answer.json()["message"]["content"] == text_of(harmless, 400)


@pytest.mark.parametrize("how", ["hang_at", "stall_at"])
def test_stream_when_the_engine_hangs_continues_on_a_new_engine(make_gateway, how, text_of):
    gateway = make_gateway(**SHORTEST_PROGRESS_TIMEOUT).start().until_ok()
    pid = gateway.engine_pid()
    content = f"{how}=5 once=1 tokens=10"
    assert _stream(gateway, content) == text_of(content, 10)
    assert gateway.engine_pid() != pid
    assert "wedged" in gateway.events("health_failed")[-1]["cause"]
    health = gateway.health()
    assert "wedged" in health["engine"]["last_crash"]["cause"]
    assert health["requests"]["survived_crashes"] == 1


def test_model_that_was_loaded_before_an_engine_crash_is_loaded_again(gateway):
    asked = {"model": "vectors", "input": "", "keep_alive": -1}
    assert gateway.http.post("/api/embed", json=asked).status_code == 200
    both = ["chat:latest", "vectors:latest"]
    gateway.until(lambda: gateway.health()["models"]["loaded"] == both, "it is loaded")
    pid = gateway.engine_pid()
    gateway.kill_engine()
    gateway.until(lambda: gateway.health()["engine"]["pid"] not in (pid, None), "another engine is there")
    gateway.until(lambda: gateway.health()["models"]["loaded"] == both, "it is loaded again")


def test_stream_when_the_engine_gets_sigterm_continues_on_the_next_engine(gateway, text_of):
    content = "tokens=60 step_ms=5"

    def end(number: int) -> None:
        if number == 10:
            gateway.kill_engine(signal.SIGTERM)

    assert _stream(gateway, content, end) == text_of(content, 60)


def test_request_before_the_first_engine_is_ready_waits_for_it(make_gateway, text_of):
    gateway = make_gateway({"starts_held": True}).start()
    with ThreadPoolExecutor(1) as pool, gateway.held():
        gateway.until(lambda: gateway.health()["status"] == "starting", "it listens")
        answer = pool.submit(_ask, gateway, "early tokens=3")
        gateway.until(lambda: gateway.health()["requests"]["queued"], "the request waits")
        gateway.go_on()
        assert answer.result().json()["message"]["content"] == text_of("early tokens=3", 3)


def test_request_gets_a_503_and_the_health_endpoint_reports_failure_if_the_engine_never_starts(make_gateway):
    gateway = make_gateway({"exit_code": 1}, VESTAL_MLX__MAX_WAIT_S="0.5").start()
    gateway.until(gateway.health, "it listens")
    answer = _ask(gateway, "hello")
    assert (answer.status_code, answer.json()["code"]) == (503, "engine_unavailable")
    assert int(answer.headers["retry-after"]) > 0
    gateway.until(lambda: gateway.health()["status"] == "failed", "the breaker opens", 60)
    assert gateway.http.get("/health").status_code == 503


def test_request_when_the_engine_refuses_its_configuration_fails_at_once(make_gateway):
    gateway = make_gateway({"exit_code": 78}, VESTAL_MLX__MAX_WAIT_S="60").start()
    gateway.until(lambda: gateway.health()["status"] == "failed", "it has failed")
    answer = gateway.http.post("/v1/chat/completions", json=gateway.chat("hello"))
    assert answer.status_code == 503
    error = answer.json()["error"]
    assert error["code"] == "engine_unavailable"
    assert "exits as its file orders" in error["message"], "the last line of the engine's log"


def test_request_whose_client_disconnects_is_cancelled_at_once(gateway):
    disconnect = threading.Event()

    def read_one_line() -> None:
        body = gateway.chat("tokens=1000000 step_ms=5")
        with gateway.http.stream("POST", "/api/chat", json=body) as answer:
            lines = answer.iter_lines()  # must stay referenced: the connection closes with it
            next(lines)
            disconnect.wait(60)

    reader = threading.Thread(target=read_one_line)
    reader.start()
    gateway.until(lambda: gateway.health()["requests"]["running"] == 1, "it runs")
    disconnect.set()
    reader.join()
    gateway.until(lambda: gateway.health()["requests"]["running"] == 0, "no request is running")
    assert _finished(gateway)[-1]["outcome"] == "cancelled"
    gateway.until((gateway.home / "cancelled").exists, "the engine has dropped the request")


@pytest.mark.parametrize(
    ("how", "cause"),
    [("senseless", "a probe was answered wrongly: a vector"), ("mute_when_probed", "no answer to a probe")],
)
def test_idle_engine_that_answers_its_probe_wrongly_or_not_at_all_is_replaced(make_gateway, how, cause):
    """After a reset of the GPU, a server gave empty answers with status 200 for six hours (ollama 18213)."""
    limits = {"VESTAL_MLX__PROBE_INTERVAL_S": "0.5", **SHORTEST_PROGRESS_TIMEOUT}
    gateway = make_gateway({how: True}, **limits).start().until_ok()
    gateway.until(
        lambda: any(cause in event["cause"] for event in gateway.events("health_failed")), "it has failed"
    )
    failed_at = next(e["seq"] for e in gateway.events("health_failed") if cause in e["cause"])
    gateway.until(lambda: gateway.events("child_ready")[-1]["seq"] > failed_at, "another engine is there")


def test_engine_beyond_its_age_limit_is_replaced_when_idle_and_not_recorded_as_a_crash(make_gateway, text_of):
    gateway = make_gateway(VESTAL_MLX__RECYCLE_AFTER_S="2").start().until_ok()
    pid = gateway.engine_pid()
    content = "recycled tokens=400 step_ms=5"
    assert _stream(gateway, content) == text_of(content, 400)
    gateway.until(lambda: gateway.health()["engine"]["pid"] not in (None, pid), "another engine is there")
    assert "hours old" in gateway.events("engine_recycled")[0]["cause"]
    assert gateway.health()["engine"]["last_crash"] is None


def _requests(gateway) -> list[dict[str, Any]]:
    return gateway.http.get("/requests").json()["requests"]


def client_of(gateway) -> GatewayClient:
    config: Any = SimpleNamespace(mlx=SimpleNamespace(port=gateway.port))
    return GatewayClient(config)


def test_demo_kills_the_engine_and_reports_that_the_answer_equals_the_uninterrupted_answer(gateway, capsys):
    client, before = client_of(gateway), gateway.engine_pid()
    assert demo.show(client, "chat", lambda pid: os.kill(pid, signal.SIGKILL), "tokens=100 step_ms=10") == 0
    assert gateway.engine_pid() != before
    shown = " ".join(capsys.readouterr().out.split())
    assert f"The engine (PID {before}) was killed by SIGKILL" in shown
    assert f"The new engine is PID {gateway.engine_pid()}." in shown
    assert "the same as the story told without a kill. No token was lost, none came twice." in shown


def test_demo_whose_engine_was_not_killed_fails_and_reports_no_success(gateway, capsys):
    client = client_of(gateway)
    with pytest.raises(HostAgentError, match="over before its engine could be killed"):
        demo.show(client, "chat", lambda pid: None, "tokens=40")
    assert "No token was lost" not in capsys.readouterr().out


def test_demo_while_another_request_runs_is_refused_and_kills_nothing(gateway, free_port):
    env = gateway.env | {"VESTAL_AGENT_PORT": str(free_port())}
    before = gateway.engine_pid()
    with gateway.http.stream("POST", "/api/chat", json=gateway.chat("tokens=100000 step_ms=20")):
        done = vestal(("demo",), env)
    assert done.returncode == 64
    assert "vestal demo --yes" in done.stderr
    assert gateway.engine_pid() == before


def test_chat_command_whose_engine_is_killed_prints_the_whole_answer(gateway, text_of, free_port):
    content = "tokens=80 hold_at=40"
    env = gateway.env | {"VESTAL_AGENT_PORT": str(free_port())}
    with ThreadPoolExecutor(1) as pool, gateway.held():
        asked = pool.submit(vestal, ("chat", "chat", content), env)
        gateway.until(lambda: any(each["tokens"] for each in _requests(gateway)), "it has tokens")
        gateway.kill_engine()
        gateway.go_on()
        done = asked.result(60)
    assert (done.returncode, done.stdout.rstrip(), done.stderr) == (0, text_of(content, 80).rstrip(), "")
