"""Stopping the server, or only its real engine: no answer is lost, and nothing hangs."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.component.mlx_server.gateway.conftest import events_in
from tests.disks.slow_disk import slow_disk
from tests.models.small_models import shallow_models

pytestmark = [pytest.mark.model, pytest.mark.timeout(300)]
MODEL = "smollm2:135m"
LONG = " ".join(f"On day {day} the keeper noted {day * 7} ships and {day * 3} gulls." for day in range(60))
Make = Callable[..., Any]


@pytest.fixture(scope="module")
def shallow_models_dir(models_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the real chat model without most of its layers, since no test here needs answers that make
    sense.
    """
    return shallow_models(models_dir, tmp_path_factory.mktemp("models"), layers=8)


@pytest.fixture
def make(make_gateway, shallow_models_dir: Path) -> Iterator[Make]:
    """Return a function that starts a gateway with the real engine and a chat model of eight layers."""
    made: list[Any] = []

    def start(**env: str) -> Any:
        own = {"VESTAL_MODELS_DIR": str(shallow_models_dir), "MLX_PRELOAD_MODELS": MODEL}
        patient = {"VESTAL_SUPERVISION__STOP_S": "10"}
        made.append(make_gateway(None, "-m", "mlx_server.gateway", **(own | patient | env)).start())
        return made[-1]

    yield start
    for gateway in made:
        with contextlib.suppress(ProcessLookupError):
            gateway.process.terminate()


def until_ready(gateway: Any) -> Any:
    gateway.until(lambda: gateway.health()["status"] == "ok", "the real engine is ready", 90)
    return gateway


def body(content: str, tokens: int, **more: Any) -> dict[str, Any]:
    options = {"temperature": 0, "num_predict": tokens}
    return {"model": MODEL, "messages": [{"role": "user", "content": content}], "options": options, **more}


def ask(gateway: Any, content: str, tokens: int) -> httpx.Response:
    return gateway.http.post("/api/chat", json=body(content, tokens, stream=False), timeout=120)


def tokens_served(gateway: Any) -> int:
    lines = gateway.http.get("/metrics").text.splitlines()
    return int(float(next(line for line in lines if line.startswith("vestal_tokens_total ")).split()[1]))


def waiting_and_running(gateway: Any) -> int:
    requests: dict[str, int] = gateway.health()["requests"]
    return requests["running"] + requests["queued"]


def engine_log(gateway: Any) -> list[dict[str, Any]]:
    return events_in(gateway.home / "logs" / "engine.log")


def sigterms(gateway: Any) -> int:
    """Return how many SIGTERMs the gateway's engines have logged."""
    asked = [line for line in engine_log(gateway) if line["event"] == "shutdown_asked"]
    return sum(line["cause"] == "SIGTERM" for line in asked)


def assert_orderly_exit(gateway: Any, timeout_s: float = 60) -> None:
    """Check that the gateway exits with 0 in time, and its engine by itself, after all its stages."""
    assert gateway.process.wait(timeout_s) == 0, gateway.log()
    assert gateway.events("server_shutdown_complete")
    assert not gateway.events("child_killed")
    assert engine_log(gateway)[-1]["event"] == "server_shutdown_complete"
    assert not (gateway.home / "run" / "mlx_engine.json").exists()


def test_gateway_that_gets_sigterm_while_a_model_loads_serves_the_waiting_request_first(make, models_dir):
    gateway = make(VESTAL_MODELS_DIR=str(models_dir), VESTAL_MLX__DRAIN_S="60")
    greeted = gateway.until(lambda: gateway.events("engine_greeted"), "the engine begins to load", 60)
    engine_pid = greeted[-1]["pid"]
    os.kill(engine_pid, signal.SIGSTOP)  # on a busy machine it may have loaded before the gateway listens
    gateway.until(lambda: gateway.health()["engine"]["pid"] == engine_pid, "the gateway listens", 60)
    with ThreadPoolExecutor() as pool:
        waits = pool.submit(ask, gateway, "Hello", 4)
        gateway.until(lambda: gateway.health()["requests"]["queued"], "the request waits")
        gateway.process.send_signal(signal.SIGTERM)
        os.kill(engine_pid, signal.SIGCONT)
        answer = waits.result()
    assert answer.status_code == 200, answer.text + gateway.log()  # the drain is long enough for it
    assert_orderly_exit(gateway)


def test_gateway_that_gets_sigterm_answers_503_to_requests_unfinished_after_the_drain_time(make):
    gateway = until_ready(make(VESTAL_MLX__DRAIN_S="2", VESTAL_MLX__MAX_RUNNING="2"))
    with ThreadPoolExecutor() as pool:
        many = [pool.submit(ask, gateway, f"{n}. Tell me a long story.", 3000) for n in range(4)]
        gateway.until(lambda: gateway.health()["requests"]["queued"] == 2, "two run, two wait")
        asked = time.monotonic()
        gateway.process.send_signal(signal.SIGTERM)
        for one in many:
            answer = one.result()
            assert (answer.status_code, answer.json()["code"]) == (503, "draining")
            assert "retry-after" in answer.headers
    assert_orderly_exit(gateway)
    assert time.monotonic() - asked < 2 + 15


def test_sigterm_is_not_delayed_by_clients_that_stop_reading_or_sending(make):
    gateway = until_ready(make(VESTAL_MLX__DRAIN_S="3"))
    asked = json.dumps(body("Go on and on.", 3000, logprobs=True, top_logprobs=20)).encode()
    head = f"POST /api/chat HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(asked)}\r\n\r\n".encode()
    with socket.socket() as client, socket.create_connection(("127.0.0.1", gateway.port)) as half:
        half.sendall(head + asked[:-9])
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        client.connect(("127.0.0.1", gateway.port))
        client.sendall(head + asked)
        gateway.until(lambda: tokens_served(gateway) > 60, "200 KB fill the buffers", 60)
        gateway.process.send_signal(signal.SIGTERM)
        assert_orderly_exit(gateway)  # a connection that nobody reads is closed after 300 s otherwise


def test_engine_terminated_twice_during_a_prefill_and_streams_loses_no_text(make):
    env = {
        "VESTAL_MLX__MAX_RUNNING": "3",
        "VESTAL_MLX__DRAIN_S": "60",
        "VESTAL_SUPERVISION__MAX_RESTARTS": "100",
    }
    gateway = until_ready(make(**env))
    # The first one takes seconds, and the engine needs as long to end by itself after the first signal.
    asks = [(LONG, 700), ("Tell me a story.", 30), ("Count the stars.", 30), ("Say hello.", 4), ("Why?", 4)]
    whole = [ask(gateway, *one).json()["message"]["content"] for one in asks[1:]]
    pid, served = gateway.engine_pid(), tokens_served(gateway)
    with ThreadPoolExecutor(len(asks)) as pool:
        os.kill(pid, signal.SIGSTOP)  # until all requests are there, in this order
        answers = []
        for number, one in enumerate(asks, start=1):
            answers.append(pool.submit(ask, gateway, *one))
            gateway.until(lambda n=number: waiting_and_running(gateway) == n, f"request {number} is there")
        assert gateway.health()["requests"]["queued"] == 2, "three run, two wait"
        os.kill(pid, signal.SIGCONT)
        gateway.until(lambda: tokens_served(gateway) > served, "it works on the streams")
        os.kill(pid, signal.SIGTERM)
        gateway.until(lambda: sigterms(gateway) == 1, "the first signal is handled: two at once would be one")
        os.kill(pid, signal.SIGTERM)
        replies = [answer.result() for answer in answers]
    assert [reply.status_code for reply in replies] == [200] * len(asks)
    assert [reply.json()["message"]["content"] for reply in replies[1:]] == whole
    assert gateway.engine_pid() != pid
    assert gateway.health()["engine"]["last_crash"] is None
    assert sigterms(gateway) == 2
    gateway.process.send_signal(signal.SIGTERM)
    assert_orderly_exit(gateway)


def test_gateway_that_gets_sigterm_lets_an_engine_with_a_slow_disk_finish_writing(make, tmp_path):
    gateway = until_ready(make(LD_PRELOAD=str(slow_disk(tmp_path))))
    assert ask(gateway, LONG[:1500], 4).status_code == 200
    gateway.process.send_signal(signal.SIGTERM)
    assert_orderly_exit(gateway)
    stages = {line["stage"]: line for line in engine_log(gateway) if line["event"] == "shutdown_stage_done"}
    assert stages["persist_caches"]["seconds"] > 2.0


def test_gateway_that_gets_sigterm_leaves_neither_a_suspended_nor_a_standby_engine(make):
    gateway = until_ready(make(VESTAL_MLX__WARM_SPARE="true", VESTAL_SUPERVISION__STOP_S="2"))
    gateway_process = psutil.Process(gateway.process.pid)
    gateway.until(lambda: len(gateway_process.children()) == 2, "there is a standby engine", 30)
    children = gateway_process.children(recursive=True)
    os.kill(gateway.engine_pid(), signal.SIGSTOP)
    gateway.process.send_signal(signal.SIGTERM)
    assert gateway.process.wait(60) == 0, gateway.log()
    assert not psutil.wait_procs(children, 30)[1]
